"""The paper's figures and tables: one module per figure or family of figures."""
