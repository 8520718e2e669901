"""A stand-in for Prisma's query engine, for hosts where the real one is not available: see query_engine.js."""
