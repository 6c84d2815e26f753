/*
** The methods of a database's three files: itself, its WAL, its rollback
** journal.
*/

static int file_read(sqlite3_file *base, void *to, int n, i64 at) {
  File *file = (File *)base;
  Node *node = file->node;
  int got;
  if (file->kind == FILE_WAL && node->append_length) {
    int rc = append_push(node);
    if (rc) return rc;
  }
  got = file->kind == FILE_DB ? ahead_read(node, to, n, at)
                              : host.read(node->file[file->kind], to, n, (double)at);
  if (got == n) return SQLITE_OK;
  if (got < 0) return SQLITE_IOERR_READ;
  memset((u8 *)to + got, 0, n - got);
  return SQLITE_IOERR_SHORT_READ;
}

/* The lease that writing to this file takes. */
static int may_write(const File *file) {
  return file->node->level >= (file->kind == FILE_WAL ? LEVEL_WRITE : LEVEL_EXCLUSIVE);
}

static int file_write(sqlite3_file *base, const void *from, int n, i64 at) {
  File *file = (File *)base;
  if (!may_write(file)) return SQLITE_BUSY;
  if (file->kind == FILE_WAL) return append_write(file->node, from, n, at);
  if (file->kind == FILE_DB) ahead_forget(file->node);
  return host_write(file->node->file[file->kind], from, n, at);
}

static int file_truncate(sqlite3_file *base, i64 size) {
  File *file = (File *)base;
  if (!may_write(file)) return SQLITE_BUSY;
  if (file->kind == FILE_WAL) append_forget(file->node);
  if (file->kind == FILE_WAL && size == 0 && file->node->restarts) {
    file->node->restarts = 0;
    return wal_restart(file->node);
  }
  if (file->kind == FILE_DB) ahead_forget(file->node);
  return host.truncate(file->node->file[file->kind], (double)size) ? SQLITE_IOERR_TRUNCATE
                                                                   : SQLITE_OK;
}

static int file_sync(sqlite3_file *base, int flags) {
  File *file = (File *)base;
  (void)flags;
  if (file->kind == FILE_WAL) {
    int rc = append_push(file->node);
    if (rc) return rc;
  }
  if (!host.flush(file->node->file[file->kind])) return SQLITE_OK;
  if (file->kind == FILE_WAL) wal_failed(file->node);
  return SQLITE_IOERR_FSYNC;
}

static int file_size(sqlite3_file *base, i64 *size) {
  File *file = (File *)base;
  double answer;
  if (file->kind == FILE_WAL) {
    int rc = append_push(file->node);
    if (rc) return rc;
  }
  answer = host.size(file->node->file[file->kind]);
  if (answer < 0) return SQLITE_IOERR_FSTAT;
  *size = (i64)answer;
  return SQLITE_OK;
}

/* In WAL mode every connection keeps SHARED. More is asked for by creation,
** by a hot rollback journal, by a change of journal mode and by closing. */
static int file_lock(sqlite3_file *base, int lock) {
  File *file = (File *)base;
  Node *node = file->node;
  if (file->lock >= lock) return SQLITE_OK;
  if (lock == SQLITE_LOCK_SHARED) {
    if (node->level == LEVEL_NONE || node->db_writer >= SQLITE_LOCK_PENDING) return SQLITE_BUSY;
    node->db_shared++;
  } else {
    if (node->level < LEVEL_EXCLUSIVE || node->stale) return SQLITE_BUSY;
    if (file->lock < SQLITE_LOCK_RESERVED && node->db_writer) return SQLITE_BUSY;
    if (lock == SQLITE_LOCK_EXCLUSIVE && node->db_shared > 1) {
      /* No new reader comes in, so that those who are there can be waited for. */
      file->lock = node->db_writer = SQLITE_LOCK_PENDING;
      return SQLITE_BUSY;
    }
    node->db_writer = lock;
  }
  file->lock = lock;
  return SQLITE_OK;
}

static int file_unlock(sqlite3_file *base, int lock) {
  File *file = (File *)base;
  if (file->lock <= lock) return SQLITE_OK;
  if (file->lock >= SQLITE_LOCK_RESERVED) file->node->db_writer = 0;
  if (lock == SQLITE_LOCK_NONE) file->node->db_shared--;
  file->lock = lock;
  return SQLITE_OK;
}

/* What SQLite closes in exclusive locking mode still has its locks. */
static int file_close(sqlite3_file *base) {
  File *file = (File *)base;
  if (file->kind != FILE_DB) return SQLITE_OK;
  shm_unmap(base, 0);
  file_unlock(base, SQLITE_LOCK_NONE);
  if (--file->node->references == 0) wal_index_free(file->node);
  return SQLITE_OK;
}

static int file_check_reserved(sqlite3_file *base, int *reserved) {
  *reserved = ((File *)base)->node->db_writer != 0;
  return SQLITE_OK;
}

static int file_control(sqlite3_file *base, int op, void *argument) {
  File *file = (File *)base;
  Node *node = file->node;
  switch (op) {
    case HOLDFAST_FCNTL_CATCH_UP: {
      int rc;
      /* A statement that was left in the middle, after its transaction, keeps a
      ** snapshot. Others may have checkpointed and restarted the WAL since. */
      if (((File *)base)->shared >> FIRST_READER) return SQLITE_MISUSE;
      rc = catch_up(node);
      if (rc == SQLITE_OK && argument) *(u32 *)argument = wal_index_frames(node);
      return rc;
    }
    case HOLDFAST_FCNTL_POSITION:
      wal_index_position(node, (u32 *)argument);
      return SQLITE_OK;
    case HOLDFAST_FCNTL_RESTART:
      node->restarts = node->level == LEVEL_EXCLUSIVE;
      return SQLITE_OK;
    case SQLITE_FCNTL_PERSIST_WAL:
      /* The last connection of a tab is not the last of the database, so the
      ** WAL stays; unless this one said (with 0) that it has the database to
      ** itself. */
      if (*(int *)argument >= 0)
        file->removes_wal = !*(int *)argument;
      else
        *(int *)argument = !file->removes_wal;
      return SQLITE_OK;
    case SQLITE_FCNTL_PRAGMA: {
      /* Whoever leaves WAL mode takes the WAL along: it would be replayed over
      ** what is committed without it. */
      char **pragma = argument; /* room for an error, the name, the value */
      if (sqlite3_stricmp(pragma[1], "journal_mode") == 0 && pragma[2] &&
          sqlite3_stricmp(pragma[2], "wal") != 0)
        file->removes_wal = 1;
      return SQLITE_NOTFOUND; /* SQLite carries it out */
    }
    case SQLITE_FCNTL_VFSNAME:
      *(char **)argument = sqlite3_mprintf("%s", the_vfs.zName);
      return *(char **)argument ? SQLITE_OK : SQLITE_NOMEM;
  }
  return SQLITE_NOTFOUND;
}

static int file_sector_size(sqlite3_file *base) {
  (void)base;
  return 4096;
}

static int file_characteristics(sqlite3_file *base) {
  (void)base;
  return SQLITE_IOCAP_POWERSAFE_OVERWRITE | SQLITE_IOCAP_UNDELETABLE_WHEN_OPEN;
}

static const sqlite3_io_methods methods = {
    2,           file_close,       file_read,           file_write,   file_truncate,
    file_sync,   file_size,        file_lock,           file_unlock,  file_check_reserved,
    file_control, file_sector_size, file_characteristics, shm_map,    shm_lock,
    shm_barrier, shm_unmap,        0,                   0};
