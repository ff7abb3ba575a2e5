"""What people read: tables, the page, CSV."""
