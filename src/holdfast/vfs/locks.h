/*
** The wal-index's memory, and the locks on it that the connections of this tab
** take of each other.
*/

static int shm_map(sqlite3_file *base, int index, int size, int extend, void volatile **memory) {
  Node *node = ((File *)base)->node;
  *memory = 0;
  if (size != SHM_REGION) return SQLITE_IOERR_SHMSIZE;
  if (index >= node->regions) {
    int rc;
    if (!extend) return SQLITE_OK;
    rc = wal_index_extend(node, index);
    if (rc) return rc;
  }
  *memory = node->region[index];
  return SQLITE_OK;
}

/*
** Locks among the connections of this tab, counted per connection; against
** other tabs the lease level speaks:
**
**   asked for                              level needed
**   any lock                               READ
**   exclusive, checkpoint byte alone       EXCLUSIVE   a checkpoint
**   exclusive, all slots from READERS on   EXCLUSIVE   a WAL restart
**   exclusive, anything else               READ        recovery and read marks
**                                                      touch this heap only
**
** The write byte is not refused to a reader: recovering a wal-index takes it.
*/
static int shm_lock(sqlite3_file *base, int offset, int n, int flags) {
  File *file = (File *)base;
  Node *node = file->node;
  int mask = ((1 << n) - 1) << offset;
  int i;
  if (flags & SQLITE_SHM_UNLOCK) {
    for (i = offset; i < offset + n; i++) {
      if (file->exclusive & (1 << i)) node->exclusive[i] = 0;
      if (file->shared & (1 << i)) node->shared[i]--;
    }
    if (offset == LOCK_WRITE && (file->exclusive & 1)) append_forget(node);
    file->exclusive &= ~mask;
    file->shared &= ~mask;
    return SQLITE_OK;
  }
  if (node->level == LEVEL_NONE || node->stale) return SQLITE_BUSY;
  if (flags & SQLITE_SHM_SHARED) {
    if (file->shared & mask) return SQLITE_OK;
    if (node->exclusive[offset]) return SQLITE_BUSY;
    node->shared[offset]++;
    file->shared |= mask;
    return SQLITE_OK;
  }
  if (node->level < LEVEL_EXCLUSIVE) {
    if (offset == LOCK_CHECKPOINT && n == 1) return SQLITE_BUSY;
    if (offset == LOCK_READERS && n == SHM_LOCKS - LOCK_READERS) return SQLITE_BUSY;
  }
  for (i = offset; i < offset + n; i++) {
    if (file->exclusive & (1 << i)) continue;
    if (node->exclusive[i] || node->shared[i] > ((file->shared >> i) & 1)) return SQLITE_BUSY;
  }
  for (i = offset; i < offset + n; i++) node->exclusive[i] = 1;
  file->exclusive |= mask;
  return SQLITE_OK;
}

static void shm_barrier(sqlite3_file *base) { (void)base; }

/* The memory stays with the node: other connections of the tab may use it. */
static int shm_unmap(sqlite3_file *base, int delete_it) {
  (void)delete_it;
  return shm_lock(base, 0, SHM_LOCKS, SQLITE_SHM_UNLOCK | SQLITE_SHM_EXCLUSIVE);
}
