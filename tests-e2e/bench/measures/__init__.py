"""One benchmark a module: its name, its sentence, and `measure(effort)`, which gives figures."""
