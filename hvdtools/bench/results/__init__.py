"""Result files: their fields, their schema, and the migration of older versions."""
