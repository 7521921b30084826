"""How providers are declared: one module for each type."""
