"""How close `ratio` comes to the practical optimum, and what each part of it contributes."""
