"""The cluster's mind: raft, store, allocator, orchestrators, scheduler, dispatcher, CA, cluster API."""
