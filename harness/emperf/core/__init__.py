"""What every room uses: errors, digests, places, schemas, limits."""
