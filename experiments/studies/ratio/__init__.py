"""How near `ratio` comes to the practical optimum, and what each part of it is worth."""
