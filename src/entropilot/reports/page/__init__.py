"""Write runs as one self-contained HTML page, or serve it live."""
