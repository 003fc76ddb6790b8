"""Sets of faces: raw archives are prepared into tables, and tables are read as batches."""
