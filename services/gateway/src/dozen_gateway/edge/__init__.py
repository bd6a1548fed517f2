"""The platform's public edge: decides on each request and forwards its bytes."""
