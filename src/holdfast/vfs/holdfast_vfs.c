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
**   this file     files, locks, the VFS, the SQL functions that set it up
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

enum { LEVEL_NONE, LEVEL_READ, LEVEL_WRITE, LEVEL_EXCLUSIVE };
enum { FILE_DB, FILE_WAL, FILE_JOURNAL, FILE_KINDS };

#include "node.h"
#include "append.h"
#include "read_ahead.h"
#include "wal_index.h"
#include "foreign.h"
#include "changes.h"

static sqlite3_vfs the_vfs;
static int shm_unmap(sqlite3_file *base, int delete_it);

/* ---- files -------------------------------------------------------------- */

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

/* ---- the wal-index's memory and locks ----------------------------------- */

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

static const sqlite3_io_methods methods = {
    2,           file_close,       file_read,           file_write,   file_truncate,
    file_sync,   file_size,        file_lock,           file_unlock,  file_check_reserved,
    file_control, file_sector_size, file_characteristics, shm_map,    shm_lock,
    shm_barrier, shm_unmap,        0,                   0};

/* ---- the VFS ------------------------------------------------------------ */

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

/* ---- SQL functions that set things up ------------------------------------ */

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
  if (rc == SQLITE_OK) sqlite3_update_hook(db, changes_row, changes);
  for (i = 0; rc == SQLITE_OK && i < sizeof functions / sizeof *functions; i++)
    rc = sqlite3_create_function(db, functions[i].name, functions[i].arguments,
                                 SQLITE_UTF8 | SQLITE_DIRECTONLY, 0, functions[i].call, 0, 0);
  return rc == SQLITE_OK ? SQLITE_OK_LOAD_PERMANENTLY : rc;
}
