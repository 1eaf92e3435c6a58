"""The tracer: a file or a text in, a candidate out. Information only: nobody is convicted by a trace."""
