"""The four reference models of MLPerf Tiny, in int8 and below."""
