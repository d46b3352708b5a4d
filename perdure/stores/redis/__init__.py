"""The parts of the store on Redis or Valkey; ``perdure.stores.redis_store`` puts them together."""
