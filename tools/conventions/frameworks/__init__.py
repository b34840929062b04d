"""One module a framework; each is imported only where that framework is installed."""
