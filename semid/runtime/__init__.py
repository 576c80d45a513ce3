"""Memory, tables, threads, processes, progress: what runs the rest."""
