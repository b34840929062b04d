"""How frameworks write batch normalization: measured by calling their layers, and recorded."""
