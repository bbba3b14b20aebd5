"""The components of the program, one noun per file. Each takes values and outputs, and reads nothing by itself."""
