/*
** Reads of the database file, ahead: a scan asks for one page after the other,
** and a host call costs as much for sixteen pages as for two.
**
** Invariant: what was read ahead is what the file has. Nobody writes to the
** database file but the holder of the exclusive lease, so it is kept from one
** lease to read until that is given up, and forgotten where this tab itself
** writes (see set_level, file_write, file_truncate).
*/
#define AHEAD_ROOM (64 * 1024)

static void ahead_forget(Node *node) {
  node->ahead_length = 0;
  node->ahead_next = -1;
}

/* As host.read of the database file. */
static int ahead_read(Node *node, void *to, int n, i64 at) {
  i64 within = at - node->ahead_at;
  if (node->ahead_length && within >= 0 && within + n <= node->ahead_length) {
    memcpy(to, node->ahead + within, n);
    node->ahead_next = at + n;
    return n;
  }
  if (at == node->ahead_next && n < AHEAD_ROOM) {
    int got;
    if (!node->ahead) node->ahead = sqlite3_malloc(AHEAD_ROOM);
    if (node->ahead) {
      node->ahead_length = 0;
      got = host.read(node->file[FILE_DB], node->ahead, AHEAD_ROOM, (double)at);
      if (got < 0) return got;
      node->ahead_at = at;
      node->ahead_length = got;
      if (got < n) n = got;
      memcpy(to, node->ahead, n);
      node->ahead_next = at + n;
      return n;
    }
  }
  node->ahead_next = at + n;
  return host.read(node->file[FILE_DB], to, n, (double)at);
}
