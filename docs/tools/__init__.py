"""Makes what the pages show: tables, listings, pictures, the site."""
