"""A stand-in for Prisma's query engine, for hosts where the real one cannot be had: see query_engine.js."""
