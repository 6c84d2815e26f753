/*
** Which tables a transaction wrote, from SQLite's update hook: called for each
** row, so it is C.
*/
#define NO_ROWID 0x7fffffffffffffffLL
typedef struct {
  char *table;
  i64 first_inserted; /* smallest rowid inserted, NO_ROWID: none */
  i64 rows[3];        /* inserted, updated, deleted */
} Change;
typedef struct {
  Change *change;
  int used, room;
  int last; /* most rows go where the one before went */
  int failed;
} Changes;

/* The place of an operation in Change.rows. */
static int changes_kind(int op) {
  return op == SQLITE_INSERT ? 0 : op == SQLITE_UPDATE ? 1 : 2;
}

static void changes_row(void *context, int op, const char *db, const char *table, i64 rowid) {
  Changes *changes = context;
  int i = changes->last;
  (void)db;
  if (i >= changes->used || strcmp(changes->change[i].table, table) != 0) {
    for (i = 0; i < changes->used && strcmp(changes->change[i].table, table) != 0; i++) {}
    if (i == changes->used) {
      int length = (int)strlen(table) + 1;
      if (i == changes->room) {
        int room = changes->room ? changes->room * 2 : 16;
        Change *grown = sqlite3_realloc64(changes->change, sizeof(Change) * room);
        if (!grown) {
          changes->failed = 1;
          return;
        }
        changes->change = grown;
        changes->room = room;
      }
      changes->change[i].table = sqlite3_malloc(length);
      if (!changes->change[i].table) {
        changes->failed = 1;
        return;
      }
      memcpy(changes->change[i].table, table, length);
      changes->change[i].first_inserted = NO_ROWID;
      memset(changes->change[i].rows, 0, sizeof changes->change[i].rows);
      changes->used++;
    }
    changes->last = i;
  }
  changes->change[i].rows[changes_kind(op)]++;
  if (op == SQLITE_INSERT && rowid < changes->change[i].first_inserted)
    changes->change[i].first_inserted = rowid;
}

static void changes_clear(Changes *changes) {
  int i;
  for (i = 0; i < changes->used; i++) sqlite3_free(changes->change[i].table);
  changes->used = 0;
  changes->last = 0;
  changes->failed = 0;
}

static void changes_free(void *context) {
  Changes *changes = context;
  changes_clear(changes);
  sqlite3_free(changes->change);
  sqlite3_free(changes);
}

/* holdfast_changes(): the tables that this connection wrote since it was last
** asked, as `table NUL rowid NUL` each (rowid empty where nothing was
** inserted); NULL for none. Rows of WITHOUT ROWID tables and of the truncate
** optimisation are not seen (SQLite's update hook). */
static void sql_changes(sqlite3_context *context, int n, sqlite3_value **values) {
  Changes *changes = sqlite3_user_data(context);
  sqlite3_str *text;
  int i, length;
  char *result;
  (void)n;
  (void)values;
  if (changes->failed) {
    changes_clear(changes);
    sqlite3_result_error_nomem(context);
    return;
  }
  if (!changes->used) return;
  text = sqlite3_str_new(0);
  for (i = 0; i < changes->used; i++) {
    sqlite3_str_appendall(text, changes->change[i].table);
    sqlite3_str_appendchar(text, 1, 0);
    if (changes->change[i].first_inserted != NO_ROWID)
      sqlite3_str_appendf(text, "%lld", changes->change[i].first_inserted);
    sqlite3_str_appendchar(text, 1, 0);
  }
  changes_clear(changes);
  length = sqlite3_str_length(text);
  result = sqlite3_str_finish(text);
  if (!result) {
    sqlite3_result_error_nomem(context);
    return;
  }
  sqlite3_result_text(context, result, length, sqlite3_free);
}

/* holdfast_rows(table, operation): how many rows of the table this connection
** wrote by SQLITE_INSERT, SQLITE_UPDATE or SQLITE_DELETE, since
** holdfast_changes() was last asked. */
static void sql_rows(sqlite3_context *context, int n, sqlite3_value **values) {
  Changes *changes = sqlite3_user_data(context);
  const char *table = (const char *)sqlite3_value_text(values[0]);
  int i, kind = changes_kind(sqlite3_value_int(values[1]));
  i64 rows = 0;
  (void)n;
  for (i = 0; table && i < changes->used; i++)
    if (strcmp(changes->change[i].table, table) == 0) rows = changes->change[i].rows[kind];
  sqlite3_result_int64(context, rows);
}
