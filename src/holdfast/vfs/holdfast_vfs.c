/*
** The VFS "holdfast": one SQLite database in WAL mode, shared by many tabs
** that have no memory in common.
**
** Every worker (a "tab" here) keeps its own wal-index, the hash tables over
** the WAL, in its own heap, and brings it up to date from the WAL file before
** each transaction ("catch-up"). Who may do what is decided outside, by Web
** Locks; what has been granted arrives here as the lease level of a node:
**
**   level         held outside                  allowed here
**   0 NONE        nothing                       nothing: SQLITE_BUSY
**   1 READ        read, shared                  read transactions
**   2 WRITE       write + read, shared          appending to the WAL
**   3 EXCLUSIVE   write + read, exclusive       checkpoint, WAL restart,
**                                               rollback journal, creation
**
** Invariants
**   - Nothing is written to a file below level 2, and the database file is
**     written only at level 3. A statement that tries gets SQLITE_BUSY.
**   - No lock is given to a tab that gained a lease and did not catch up: its
**     wal-index may be of a WAL that was begun anew since. Closing, too, would
**     checkpoint by it.
**   - Frames enter the wal-index only in whole transactions: what a dead
**     writer left without a commit frame is never published.
**   - While a connection of this tab writes, no catch-up happens: nobody else
**     can write then, and SQLite itself is filling the hash tables.
**   - xSync and xDelete flush, always.
**
** The file handles live outside too, behind five functions ("the host"): in
** a browser over OPFS sync access handles, elsewhere over whatever a test
** wants to put there. They come in as function pointers (in WebAssembly:
** indexes of the function table) through the SQL function holdfast_vfs_host,
** so nothing here needs eval or a symbol of the page.
**
** In parts, each with one subject, compiled as one:
**
**   node.h        the host's functions; what a tab has of a database
**   append.h      appends to the WAL, gathered
**   read_ahead.h  reads of the database file, ahead
**   wal_index.h   catch-up
**   foreign.h     whether a WAL is of another database
**   changes.h     which tables a transaction wrote
**   locks.h       the wal-index's memory and locks
**   files.h       the methods of the files
**   setup.h       the SQL functions that set it up
**   this file     the VFS, and the extension's entry
*/
#include "sqlite3ext.h"
SQLITE_EXTENSION_INIT1

#define memcpy __builtin_memcpy
#define memset __builtin_memset
#define memcmp __builtin_memcmp
#define strlen __builtin_strlen
#define strcmp __builtin_strcmp

typedef sqlite3_int64 i64;
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;

/* A file control of our own: bring the wal-index up to date. Its argument, if
** any, points to a u32 that gets the number of frames in the WAL. */
#define HOLDFAST_FCNTL_CATCH_UP 0x48460001
/* Another: where the wal-index stands now. Its argument points to three u32
** that get the number of frames in the WAL, and the WAL's two salts. */
#define HOLDFAST_FCNTL_POSITION 0x48460002

/* And one: when SQLite truncates the WAL next, begin it anew in place instead. */
#define HOLDFAST_FCNTL_RESTART 0x48460003

enum { LEVEL_NONE, LEVEL_READ, LEVEL_WRITE, LEVEL_EXCLUSIVE };
enum { FILE_DB, FILE_WAL, FILE_JOURNAL, FILE_KINDS };

#include "node.h"
#include "append.h"
#include "read_ahead.h"
#include "wal_index.h"
#include "foreign.h"
#include "changes.h"
#include "locks.h"

static sqlite3_vfs the_vfs;

#include "files.h"
#include "setup.h"

#define ORIGINAL(vfs) ((sqlite3_vfs *)(vfs)->pAppData)

static int vfs_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *base, int flags, int *out) {
  File *file = (File *)base;
  int kind;
  Node *node;
  if (!name) /* a temporary file: the default VFS's, which is memory in Pyodide */
    return ORIGINAL(vfs)->xOpen(ORIGINAL(vfs), name, base, flags, out);
  memset(file, 0, sizeof *file);
  node = node_of(name, &kind);
  if (!node) return SQLITE_CANTOPEN;
  if (kind == FILE_DB) {
    /* A tab may have died between emptying the rollback journal and flushing
    ** that. Whoever goes on without a journal has to know that it stays away. */
    if (node->references == 0 && host.size(node->file[FILE_JOURNAL]) == 0 &&
        host.flush(node->file[FILE_JOURNAL]))
      return SQLITE_IOERR_FSYNC;
    node->references++;
  }
  file->base.pMethods = &methods;
  file->node = node;
  file->kind = kind;
  if (out) *out = flags;
  return SQLITE_OK;
}

static int vfs_delete(sqlite3_vfs *vfs, const char *name, int sync) {
  int kind;
  Node *node = node_of(name, &kind);
  (void)vfs;
  (void)sync;
  if (!node) return SQLITE_IOERR_DELETE_NOENT;
  if (node->level < LEVEL_EXCLUSIVE) return SQLITE_BUSY;
  if (host.size(node->file[kind]) <= 0) return SQLITE_IOERR_DELETE_NOENT;
  if (host.truncate(node->file[kind], 0)) return SQLITE_IOERR_DELETE;
  /* SQLite leaves it to the folder's sync that a file does not come back, and
  ** asks for that at synchronous=extra alone. Here nothing but its own flush
  ** keeps a journal from being rolled back, or a WAL from being replayed, over
  ** what was committed later. */
  if (host.flush(node->file[kind])) return SQLITE_IOERR_DELETE;
  return SQLITE_OK;
}

/* A file exists when it has bytes: all three are opened beforehand. Asked of
** the handle each time, for a dead tab may have left some. */
static int vfs_access(sqlite3_vfs *vfs, const char *name, int flags, int *answer) {
  int kind;
  Node *node = node_of(name, &kind);
  (void)vfs;
  (void)flags;
  *answer = node && host.size(node->file[kind]) > 0;
  return SQLITE_OK;
}

static int vfs_full_pathname(sqlite3_vfs *vfs, const char *name, int n, char *out) {
  (void)vfs;
  if ((int)strlen(name) >= n) return SQLITE_CANTOPEN;
  memcpy(out, name, strlen(name) + 1);
  return SQLITE_OK;
}

static void *vfs_dl_open(sqlite3_vfs *vfs, const char *path) {
  return ORIGINAL(vfs)->xDlOpen(ORIGINAL(vfs), path);
}
static void vfs_dl_error(sqlite3_vfs *vfs, int n, char *out) {
  ORIGINAL(vfs)->xDlError(ORIGINAL(vfs), n, out);
}
static void (*vfs_dl_symbol(sqlite3_vfs *vfs, void *library, const char *name))(void) {
  return ORIGINAL(vfs)->xDlSym(ORIGINAL(vfs), library, name);
}
static void vfs_dl_close(sqlite3_vfs *vfs, void *library) {
  ORIGINAL(vfs)->xDlClose(ORIGINAL(vfs), library);
}
static int vfs_randomness(sqlite3_vfs *vfs, int n, char *out) {
  return ORIGINAL(vfs)->xRandomness(ORIGINAL(vfs), n, out);
}
/* Leases come and go with the event loop, which runs no further while SQLite
** sleeps: a statement that has to wait would wait in vain, and fails at once. */
static int vfs_sleep(sqlite3_vfs *vfs, int us) {
  (void)vfs;
  return us;
}
static int vfs_time(sqlite3_vfs *vfs, double *days) {
  return ORIGINAL(vfs)->xCurrentTime(ORIGINAL(vfs), days);
}
static int vfs_time64(sqlite3_vfs *vfs, i64 *ms) {
  return ORIGINAL(vfs)->xCurrentTimeInt64(ORIGINAL(vfs), ms);
}
static int vfs_last_error(sqlite3_vfs *vfs, int n, char *out) {
  (void)vfs;
  (void)n;
  (void)out;
  return 0;
}

static sqlite3_vfs the_vfs = {
    2, sizeof(File), 1024, 0, "holdfast", 0, vfs_open, vfs_delete, vfs_access, vfs_full_pathname,
    vfs_dl_open, vfs_dl_error, vfs_dl_symbol, vfs_dl_close, vfs_randomness, vfs_sleep, vfs_time,
    vfs_last_error, vfs_time64, 0, 0, 0};

#if defined(_WIN32)
__declspec(dllexport)
#else
__attribute__((visibility("default")))
#endif
int sqlite3_holdfastvfs_init(sqlite3 *db, char **error, const sqlite3_api_routines *api) {
  static const struct {
    const char *name;
    int arguments;
    void (*call)(sqlite3_context *, int, sqlite3_value **);
  } functions[] = {
      {"holdfast_vfs_host", 5, sql_host},   {"holdfast_vfs_add", 4, sql_add},
      {"holdfast_vfs_level", 2, sql_level}, {"holdfast_vfs_remove", 1, sql_remove},
      {"holdfast_vfs_status", 2, sql_status},
  };
  Changes *changes;
  unsigned i;
  int rc = SQLITE_OK;
  SQLITE_EXTENSION_INIT2(api);
  (void)error;
  if (!sqlite3_vfs_find("holdfast")) {
    sqlite3_vfs *original = sqlite3_vfs_find(0);
    the_vfs.pAppData = original;
    if (the_vfs.szOsFile < original->szOsFile) the_vfs.szOsFile = original->szOsFile;
    rc = sqlite3_vfs_register(&the_vfs, 0);
  }
  changes = sqlite3_malloc(sizeof *changes);
  if (!changes) return SQLITE_NOMEM;
  memset(changes, 0, sizeof *changes);
  if (rc == SQLITE_OK)
    rc = sqlite3_create_function_v2(db, "holdfast_changes", 0, SQLITE_UTF8 | SQLITE_DIRECTONLY,
                                    changes, sql_changes, 0, 0, changes_free);
  /* The first one owns `changes`, and is there as long as the connection. */
  if (rc == SQLITE_OK)
    rc = sqlite3_create_function_v2(db, "holdfast_rows", 2, SQLITE_UTF8 | SQLITE_DIRECTONLY,
                                    changes, sql_rows, 0, 0, 0);
  if (rc == SQLITE_OK) sqlite3_update_hook(db, changes_row, changes);
  for (i = 0; rc == SQLITE_OK && i < sizeof functions / sizeof *functions; i++)
    rc = sqlite3_create_function(db, functions[i].name, functions[i].arguments,
                                 SQLITE_UTF8 | SQLITE_DIRECTONLY, 0, functions[i].call, 0, 0);
  return rc == SQLITE_OK ? SQLITE_OK_LOAD_PERMANENTLY : rc;
}
