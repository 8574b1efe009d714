"""Records to tables: statistics (``stats``), one honest table (``tables``), its text forms (``render``)."""
