"""One file per ERP behind one small Protocol."""
