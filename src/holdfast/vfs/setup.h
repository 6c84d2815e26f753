/* The SQL functions that set the VFS up, and tell what it has done. */

/* holdfast_vfs_host(read, write, truncate, size, flush): function pointers. */
static void sql_host(sqlite3_context *context, int n, sqlite3_value **values) {
  (void)context;
  (void)n;
#define POINTER(i) ((void *)(__SIZE_TYPE__)sqlite3_value_int64(values[i]))
  host.read = (int (*)(int, void *, int, double))POINTER(0);
  host.write = (int (*)(int, const void *, int, double))POINTER(1);
  host.truncate = (int (*)(int, double))POINTER(2);
  host.size = (double (*)(int))POINTER(3);
  host.flush = (int (*)(int))POINTER(4);
#undef POINTER
}

/* holdfast_vfs_add(name, db, wal, journal): a database and its host files. */
static void sql_add(sqlite3_context *context, int n, sqlite3_value **values) {
  const char *name = (const char *)sqlite3_value_text(values[0]);
  int length = sqlite3_value_bytes(values[0]);
  Node *node;
  int kind;
  (void)n;
  if (!name || node_find(name, length)) {
    sqlite3_result_error(context, "holdfast_vfs_add: the name is NULL or taken", -1);
    return;
  }
  node = sqlite3_malloc(sizeof *node);
  if (node) {
    memset(node, 0, sizeof *node);
    node->name = sqlite3_malloc(length + 1);
  }
  if (!node || !node->name) {
    sqlite3_free(node);
    sqlite3_result_error_nomem(context);
    return;
  }
  memcpy(node->name, name, length + 1);
  for (kind = 0; kind < FILE_KINDS; kind++) node->file[kind] = sqlite3_value_int(values[1 + kind]);
  node->append_next = -1;
  node->ahead_next = -1;
  node->next = nodes;
  nodes = node;
}

/* holdfast_vfs_remove(name): once no connection has it open. */
static void sql_remove(sqlite3_context *context, int n, sqlite3_value **values) {
  const char *name = (const char *)sqlite3_value_text(values[0]);
  Node **link = &nodes;
  (void)n;
  while (*link && strcmp((*link)->name, name ? name : "") != 0) link = &(*link)->next;
  if (!*link || (*link)->references) {
    sqlite3_result_error(context, "holdfast_vfs_remove: unknown, or still open", -1);
    return;
  }
  {
    Node *node = *link;
    *link = node->next;
    wal_index_free(node);
    sqlite3_free(node->name);
    sqlite3_free(node);
  }
}

/* holdfast_vfs_level(name, level): what the locks that are held now allow. */
static void sql_level(sqlite3_context *context, int n, sqlite3_value **values) {
  const char *name = (const char *)sqlite3_value_text(values[0]);
  Node *node = name ? node_find(name, sqlite3_value_bytes(values[0])) : 0;
  (void)n;
  if (node)
    set_level(node, sqlite3_value_int(values[1]));
  else
    sqlite3_result_error(context, "holdfast_vfs_level: unknown database", -1);
}

/* holdfast_vfs_status(name, what): 'level', 'frames', 'caught_up' (times that
** frames of others were entered), 'recovered' (times that the wal-index was
** given up for SQLite's recovery) or 'foreign' (1: the WAL is of another
** database; -1: it cannot be read). */
static void sql_status(sqlite3_context *context, int n, sqlite3_value **values) {
  const char *name = (const char *)sqlite3_value_text(values[0]);
  const char *what = (const char *)sqlite3_value_text(values[1]);
  Node *node = name ? node_find(name, sqlite3_value_bytes(values[0])) : 0;
  (void)n;
  if (!node || !what) return;
  if (strcmp(what, "level") == 0) sqlite3_result_int(context, node->level);
  if (strcmp(what, "caught_up") == 0) sqlite3_result_int(context, node->caught_up);
  if (strcmp(what, "recovered") == 0) sqlite3_result_int(context, node->recovered);
  if (strcmp(what, "foreign") == 0) sqlite3_result_int(context, wal_is_foreign(node));
  if (strcmp(what, "frames") == 0) sqlite3_result_int64(context, wal_index_frames(node));
}
