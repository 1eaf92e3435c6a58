"""Marks by hand, without chain and services: for sellers who deliver themselves, and for trying the marks."""
