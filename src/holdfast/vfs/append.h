/*
** Appends to the WAL, gathered so that a transaction's frames go out in one
** host call. Invariant: nothing is gathered while no write lock is held, nor
** after a commit frame: an error of the host still reaches SQLite in time to
** roll back. What SQLite writes behind a commit frame (where it does not trust
** overwriting, its frames are cut in two and the last is repeated) goes out as
** it comes.
*/
static u32 get32(const u8 *p) {
  return ((u32)p[0] << 24) | ((u32)p[1] << 16) | ((u32)p[2] << 8) | p[3];
}

static int host_write(int file, const void *from, int n, i64 at) {
  int written = host.write(file, from, n, (double)at);
  if (written == n) return SQLITE_OK;
  return written == HOST_ERROR ? SQLITE_IOERR_WRITE : SQLITE_FULL;
}

/* The WAL could not be written or flushed: SQLite takes its transaction back,
** but the frames may all be in the file, and another tab may have read them as
** committed already. So the file decides: the next catch-up looks there again,
** and a transaction that is whole stays. Its writer was told of an error, not
** that it is gone. */
static void wal_failed(Node *node) { node->current = 0; }

/* A flush that has to write a file's new size down as well takes a third longer,
** so behind a commit that made the WAL longer come zeros for the next ones. They
** are no frame: no page has the number 0. Where there is no space for them,
** nothing is missing. */
static void append_room(Node *node, i64 end) {
  double size;
  if (end <= node->wal_room) return;
  size = host.size(node->file[FILE_WAL]);
  if (size == (double)end) {
    memset(node->append, 0, WAL_ROOM);
    if (host.write(node->file[FILE_WAL], node->append, WAL_ROOM, size) == WAL_ROOM)
      size += WAL_ROOM;
  }
  node->wal_room = (i64)size;
}

static int append_push(Node *node) {
  int n = node->append_length;
  if (n == 0) return SQLITE_OK;
  int rc;
  node->append_length = 0;
  rc = host_write(node->file[FILE_WAL], node->append, n, node->append_at);
  if (rc)
    wal_failed(node);
  else if (node->append_commit)
    append_room(node, node->append_at + n);
  return rc;
}

static int append_write(Node *node, const void *from, int n, i64 at) {
  int rc;
  int is_header = n == FRAME_HEADER;
  if (at == 0 && n == WAL_HEADER) node->append_next = -1;
  /* A frame that is written again inside its transaction, or a checksum that
  ** is mended: goes out directly, behind what was gathered before it. */
  if (node->append_next >= 0 ? at != node->append_next : !is_header) {
    rc = append_push(node);
    if (rc) return rc;
    rc = host_write(node->file[FILE_WAL], from, n, at);
    if (rc) wal_failed(node);
    return rc;
  }
  if (!node->append) {
    node->append = sqlite3_malloc(APPEND_ROOM);
    if (!node->append) return SQLITE_NOMEM;
  }
  if (node->append_length + n > APPEND_ROOM) {
    rc = append_push(node);
    if (rc) return rc;
  }
  if (node->append_length == 0) node->append_at = at;
  memcpy(node->append + node->append_length, from, n);
  node->append_length += n;
  node->append_next = at + n;
  /* The commit frame must not wait: without xSync (synchronous=normal) nothing
  ** else would send it, and an error here is the last that SQLite can still
  ** turn into a rollback. */
  if (node->append_commit) return append_push(node);
  if (is_header) node->append_commit = get32((const u8 *)from + 4) != 0;
  return SQLITE_OK;
}

/* The write lock is given up: whatever is gathered belongs to a transaction
** that was rolled back. */
static void append_forget(Node *node) {
  node->append_length = 0;
  node->append_commit = 0;
  node->append_next = -1;
}
