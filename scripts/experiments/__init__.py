"""The page of the paper's claims, built from results files: one module a section, `page.py` for what they share."""
