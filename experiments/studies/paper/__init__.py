"""The paper's figures and tables, one module a figure or a family of figures."""
