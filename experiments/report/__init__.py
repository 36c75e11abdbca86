"""One HTML file that shows the results of a sweep, to read and to share offline."""
