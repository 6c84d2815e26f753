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
**   - Frames enter the wal-index only in whole transactions: what a dead
**     writer left without a commit frame is never published.
**   - While a connection of this tab writes, no catch-up happens: nobody else
**     can write then, and SQLite itself is filling the hash tables.
**   - xSync flushes, always.
**
** The file handles live outside too, behind five functions ("the host"): in
** a browser over OPFS sync access handles, elsewhere over whatever a test
** wants to put there. They come in as function pointers (in WebAssembly:
** indexes of the function table) through the SQL function holdfast_vfs_host,
** so nothing here needs eval or a symbol of the page.
**
** The WAL and wal-index formats are those of SQLite's "WAL-mode File Format"
** (sqlite.org/walformat.html) and of wal.c's comments.
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

/* A file control of our own: bring the wal-index up to date. */
#define HOLDFAST_FCNTL_CATCH_UP 0x48460001

enum { LEVEL_NONE, LEVEL_READ, LEVEL_WRITE, LEVEL_EXCLUSIVE };
enum { FILE_DB, FILE_WAL, FILE_JOURNAL, FILE_KINDS };

/* ---- the host ---------------------------------------------------------- */

/* Offsets and sizes are doubles: exact up to 2^53, and they cross into
** JavaScript without BigInt. read and write return the bytes moved, HOST_FULL
** or HOST_ERROR; the others 0 or HOST_ERROR, size the size. */
enum { HOST_ERROR = -1, HOST_FULL = -2 };
static struct {
  int (*read)(int file, void *to, int n, double at);
  int (*write)(int file, const void *from, int n, double at);
  int (*truncate)(int file, double size);
  double (*size)(int file);
  int (*flush)(int file);
} host;

/* ---- nodes: one per database and worker -------------------------------- */

#define SHM_REGION 32768
#define SHM_LOCKS 8
#define LOCK_WRITE 0       /* SQLite's WAL_WRITE_LOCK */
#define LOCK_CHECKPOINT 1  /* SQLite's WAL_CKPT_LOCK */
#define LOCK_READERS 4     /* first of the reader slots that a restart takes */
#define WAL_HEADER 32
#define FRAME_HEADER 24
#define APPEND_ROOM (128 * 1024)

typedef struct Node Node;
struct Node {
  Node *next;
  char *name;
  int file[FILE_KINDS];
  int level;
  int current;         /* caught up at level >= WRITE: nobody else can add */
  int header_checked;  /* the WAL's salts were compared since level was NONE */
  int references;      /* open main database files */
  int db_shared;       /* of them, how many hold SQLite's SHARED lock */
  int db_exclusive;    /* 1 while one holds RESERVED or more */
  u8 **region;         /* the wal-index, SHM_REGION bytes each */
  int regions;
  int shared[SHM_LOCKS];
  int exclusive[SHM_LOCKS];
  u8 *frame;           /* one frame, for catch-up */
  u32 frame_size;
  /* Appends to the WAL are gathered, so that a transaction's frames go out
  ** in one host call. Invariant: empty whenever no write lock is held, and
  ** after each commit frame. */
  u8 *append;
  int append_length;
  i64 append_at;       /* where the first gathered byte belongs */
  i64 append_next;     /* end of the run; -1: any frame header starts one */
  int append_commit;   /* the last gathered header is a commit frame's */
  int page_size;       /* as the WAL header says; 0: unknown */
  /* for status and for tests */
  int caught_up, recovered;
};

static Node *nodes;

typedef struct {
  sqlite3_file base;
  Node *node;
  int kind;
  int lock;             /* SQLite's lock on the database file */
  int shared, exclusive; /* masks of wal-index locks */
} File;

static Node *node_find(const char *name, int length) {
  Node *node;
  for (node = nodes; node; node = node->next) {
    if ((int)strlen(node->name) == length && memcmp(node->name, name, length) == 0)
      return node;
  }
  return 0;
}

/* The node and kind of "x.db", "x.db-wal" or "x.db-journal". */
static Node *node_of(const char *name, int *kind) {
  static const char *const suffix[] = {"", "-wal", "-journal"};
  int length = name ? (int)strlen(name) : 0;
  int k;
  for (k = FILE_KINDS - 1; k >= 0; k--) {
    int s = (int)strlen(suffix[k]);
    Node *node;
    if (length <= s || memcmp(name + length - s, suffix[k], s) != 0) continue;
    node = node_find(name, length - s);
    if (node) {
      *kind = k;
      return node;
    }
  }
  return 0;
}

static void wal_index_free(Node *node) {
  int i;
  for (i = 0; i < node->regions; i++) sqlite3_free(node->region[i]);
  sqlite3_free(node->region);
  sqlite3_free(node->frame);
  sqlite3_free(node->append);
  node->region = 0;
  node->regions = 0;
  node->frame = 0;
  node->frame_size = 0;
  node->append = 0;
  node->append_length = 0;
  node->append_next = -1;
  node->header_checked = 0;
  node->current = 0;
}

static int wal_index_extend(Node *node, int index) {
  if (index >= node->regions) {
    u8 **grown = sqlite3_realloc64(node->region, sizeof(u8 *) * (index + 1));
    if (!grown) return SQLITE_NOMEM;
    node->region = grown;
    while (node->regions <= index) {
      u8 *memory = sqlite3_malloc(SHM_REGION);
      if (!memory) return SQLITE_NOMEM;
      memset(memory, 0, SHM_REGION);
      node->region[node->regions++] = memory;
    }
  }
  return SQLITE_OK;
}

/* ---- gathered appends to the WAL --------------------------------------- */

static u32 get32(const u8 *p) {
  return ((u32)p[0] << 24) | ((u32)p[1] << 16) | ((u32)p[2] << 8) | p[3];
}

static int host_write(int file, const void *from, int n, i64 at) {
  int written = host.write(file, from, n, (double)at);
  if (written == n) return SQLITE_OK;
  return written == HOST_ERROR ? SQLITE_IOERR_WRITE : SQLITE_FULL;
}

static int append_push(Node *node) {
  int n = node->append_length;
  if (n == 0) return SQLITE_OK;
  node->append_length = 0;
  node->append_commit = 0;
  return host_write(node->file[FILE_WAL], node->append, n, node->append_at);
}

static int append_write(Node *node, const void *from, int n, i64 at) {
  int rc;
  int is_header = n == FRAME_HEADER;
  if (at == 0 && n == WAL_HEADER) {
    node->page_size = (int)get32((const u8 *)from + 8);
    node->append_next = -1;
  }
  /* A frame that is written again inside its transaction, or a checksum that
  ** is mended: goes out directly, behind what was gathered before it. */
  if (node->append_next >= 0 ? at != node->append_next : !is_header) {
    rc = append_push(node);
    return rc ? rc : host_write(node->file[FILE_WAL], from, n, at);
  }
  if (!node->append) {
    node->append = sqlite3_malloc(APPEND_ROOM);
    if (!node->append) return SQLITE_NOMEM;
  }
  if (node->append_length + n > APPEND_ROOM) {
    int commit = node->append_commit;
    rc = append_push(node);
    if (rc) return rc;
    node->append_commit = commit;
  }
  if (node->append_length == 0) node->append_at = at;
  memcpy(node->append + node->append_length, from, n);
  node->append_length += n;
  node->append_next = at + n;
  if (is_header) {
    node->append_commit = get32((const u8 *)from + 4) != 0;
  } else if (node->append_commit) {
    /* The commit frame is whole. It must not wait: without xSync
    ** (synchronous=normal) nothing else would send it, and an error here is
    ** the last that SQLite can still turn into a rollback. */
    return append_push(node);
  }
  return SQLITE_OK;
}

/* The write lock is given up: whatever is gathered belongs to a transaction
** that was rolled back. */
static void append_forget(Node *node) {
  node->append_length = 0;
  node->append_commit = 0;
  node->append_next = -1;
}

/* ---- catch-up ----------------------------------------------------------- */

/* The wal-index header: 48 bytes, twice, then 40 bytes of WalCkptInfo. */
typedef struct {
  u32 version, unused, change;
  u8 is_init, big_endian;
  u16 page_size;
  u32 max_frame, pages, frame_checksum[2], salt[2], checksum[2];
} IndexHeader;
typedef struct {
  u32 backfilled, read_mark[5];
  u8 locks[SHM_LOCKS];
  u32 backfill_attempted, unused;
} CheckpointInfo;
#define INDEX_HEADER_ROOM 136
#define HASH_SLOTS 8192
#define HASH_ENTRIES 4096
#define HASH_ENTRIES_FIRST (HASH_ENTRIES - INDEX_HEADER_ROOM / 4)

static void checksum(const u8 *data, int n, const u32 *in, u32 *out) {
  u32 a = in ? in[0] : 0, b = in ? in[1] : 0;
  const u32 *word = (const u32 *)data, *end = (const u32 *)(data + n);
  while (word < end) {
    a += *word++ + b;
    b += *word++ + a;
  }
  out[0] = a;
  out[1] = b;
}

/* Enter frame `frame` (from 1) as holding page `page`. As SQLite's
** walIndexAppend: what a transaction that never committed left in the slots
** behind it is cleaned first. */
static int index_append(Node *node, u32 frame, u32 page) {
  int which = (int)((frame + HASH_ENTRIES - HASH_ENTRIES_FIRST - 1) / HASH_ENTRIES);
  u32 *entry, zero, i, key, room;
  u16 *hash;
  int rc = wal_index_extend(node, which);
  if (rc) return rc;
  hash = (u16 *)(node->region[which] + HASH_ENTRIES * 4);
  if (which == 0) {
    entry = (u32 *)(node->region[0] + INDEX_HEADER_ROOM);
    zero = 0;
    room = HASH_ENTRIES_FIRST;
  } else {
    entry = (u32 *)node->region[which];
    zero = HASH_ENTRIES_FIRST + (u32)(which - 1) * HASH_ENTRIES;
    room = HASH_ENTRIES;
  }
  i = frame - zero; /* 1-based in this region */
  if (i == 1) {
    memset(entry, 0, room * 4);
    memset(hash, 0, HASH_SLOTS * 2);
  } else if (entry[i - 1]) {
    int k;
    for (k = 0; k < HASH_SLOTS; k++)
      if (hash[k] >= i) hash[k] = 0;
    memset(entry + (i - 1), 0, (room - (i - 1)) * 4);
  }
  key = (page * 383) & (HASH_SLOTS - 1);
  while (hash[key]) key = (key + 1) & (HASH_SLOTS - 1);
  entry[i - 1] = page;
  hash[key] = (u16)i;
  return SQLITE_OK;
}

/* Let SQLite's own recovery read the whole WAL at the next transaction. The
** recovered header cannot equal one of an earlier generation of the WAL, whose
** pages may still be cached: the salts tell them apart. */
static void index_reset(Node *node) {
  memset(node->region[0], 0, INDEX_HEADER_ROOM);
  node->recovered++;
}

static void index_publish(Node *node, IndexHeader *header) {
  IndexHeader *published = (IndexHeader *)node->region[0];
  header->change++;
  checksum((const u8 *)header, 40, 0, header->checksum);
  published[1] = *header;
  published[0] = *header;
}

/* There is no WAL, and an empty file has no salts that would tell whether
** others filled and emptied it meanwhile. So every cached page is given up:
** the header becomes one that no connection has ever seen. */
static void index_empty(Node *node) {
  IndexHeader header = *(IndexHeader *)node->region[0];
  CheckpointInfo *info = (CheckpointInfo *)(node->region[0] + 2 * sizeof header);
  header.max_frame = 0;
  header.pages = 0;
  memset(header.frame_checksum, 0, sizeof header.frame_checksum);
  sqlite3_randomness(sizeof header.salt, header.salt);
  memset(info, 0, sizeof *info);
  memset(info->read_mark + 1, 0xff, sizeof info->read_mark - sizeof(u32));
  index_publish(node, &header);
}

/* Enter what others committed since this tab last looked. */
static int catch_up(Node *node) {
  IndexHeader *published, header;
  u32 page_size, sum[2], frame;
  int found = 0;
  if (node->level == LEVEL_NONE) return SQLITE_BUSY;
  if (node->current || node->exclusive[LOCK_WRITE] || node->regions == 0) return SQLITE_OK;
  published = (IndexHeader *)node->region[0];
  if (!published->is_init) return SQLITE_OK; /* SQLite will recover */
  page_size = (published->page_size & 0xfe00) + ((u32)(published->page_size & 1) << 16);

  /* A WAL with frames is restarted only while nobody else has a lease, so
  ** between two gaps its salts are compared once. An empty one gets its header
  ** from the next writer, whoever reads beside it. */
  if (!node->header_checked || published->max_frame == 0) {
    u8 wal_header[WAL_HEADER];
    int n = host.read(node->file[FILE_WAL], wal_header, WAL_HEADER, 0);
    if (n < 0) return SQLITE_IOERR_READ;
    if (n < WAL_HEADER) {
      if (!node->header_checked) index_empty(node);
      node->header_checked = 1;
      return SQLITE_OK;
    }
    node->header_checked = 1;
    if (memcmp(wal_header + 16, published->salt, 8) != 0 || published->big_endian ||
        get32(wal_header + 8) != page_size) {
      index_reset(node);
      return SQLITE_OK;
    }
  }

  if (node->frame_size < page_size + FRAME_HEADER) {
    u8 *grown = sqlite3_realloc(node->frame, (int)(page_size + FRAME_HEADER));
    if (!grown) return SQLITE_NOMEM;
    node->frame = grown;
    node->frame_size = page_size + FRAME_HEADER;
  }
  header = *published;
  sum[0] = header.frame_checksum[0];
  sum[1] = header.frame_checksum[1];
  for (frame = header.max_frame + 1;; frame++) {
    double at = WAL_HEADER + (double)(frame - 1) * (page_size + FRAME_HEADER);
    u8 *data = node->frame;
    u32 page, after[2];
    int size = (int)page_size + FRAME_HEADER;
    /* Mostly there is nothing new: then 24 bytes tell it. */
    int n = host.read(node->file[FILE_WAL], data, FRAME_HEADER, at);
    if (n < 0) return SQLITE_IOERR_READ;
    if (n < FRAME_HEADER || memcmp(data + 8, header.salt, 8) != 0) break;
    n = host.read(node->file[FILE_WAL], data, size, at);
    if (n < 0) return SQLITE_IOERR_READ;
    page = get32(data);
    if (n < size || page == 0) break;
    checksum(data, 8, sum, after);
    checksum(data + FRAME_HEADER, (int)page_size, after, after);
    if (after[0] != get32(data + 16) || after[1] != get32(data + 20)) break;
    sum[0] = after[0];
    sum[1] = after[1];
    if (index_append(node, frame, page)) return SQLITE_NOMEM;
    if (get32(data + 4)) { /* a commit frame: its transaction is whole */
      header.max_frame = frame;
      header.pages = get32(data + 4);
      header.frame_checksum[0] = sum[0];
      header.frame_checksum[1] = sum[1];
      found = 1;
    }
  }
  if (found) {
    index_publish(node, &header);
    node->caught_up++;
  }
  node->current = node->level >= LEVEL_WRITE;
  return SQLITE_OK;
}

/* Coming down from EXCLUSIVE, the index may describe a restart that was rolled
** back, and so never reached the file: it is compared again before the next
** transaction, or a writer would overwrite frames that others still read. */
static void set_level(Node *node, int level) {
  if (level == LEVEL_NONE || (node->level == LEVEL_EXCLUSIVE && level < LEVEL_EXCLUSIVE)) {
    node->header_checked = 0;
    node->current = 0;
  }
  if (level < LEVEL_WRITE) node->current = 0;
  node->level = level;
}

/* ---- files -------------------------------------------------------------- */

static int file_close(sqlite3_file *base) {
  File *file = (File *)base;
  if (file->kind == FILE_DB && --file->node->references == 0) wal_index_free(file->node);
  return SQLITE_OK;
}

static int file_read(sqlite3_file *base, void *to, int n, i64 at) {
  File *file = (File *)base;
  Node *node = file->node;
  int got;
  if (file->kind == FILE_WAL && node->append_length) {
    int rc = append_push(node);
    if (rc) return rc;
  }
  got = host.read(node->file[file->kind], to, n, (double)at);
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
  return host_write(file->node->file[file->kind], from, n, at);
}

static int file_truncate(sqlite3_file *base, i64 size) {
  File *file = (File *)base;
  if (!may_write(file)) return SQLITE_BUSY;
  if (file->kind == FILE_WAL) append_forget(file->node);
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
  return host.flush(file->node->file[file->kind]) ? SQLITE_IOERR_FSYNC : SQLITE_OK;
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
    if (node->level == LEVEL_NONE || node->db_exclusive) return SQLITE_BUSY;
    node->db_shared++;
  } else {
    if (node->level < LEVEL_EXCLUSIVE) return SQLITE_BUSY;
    if (file->lock < SQLITE_LOCK_RESERVED && node->db_exclusive) return SQLITE_BUSY;
    if (lock == SQLITE_LOCK_EXCLUSIVE && node->db_shared > 1) return SQLITE_BUSY;
    node->db_exclusive = 1;
  }
  file->lock = lock;
  return SQLITE_OK;
}

static int file_unlock(sqlite3_file *base, int lock) {
  File *file = (File *)base;
  if (file->lock <= lock) return SQLITE_OK;
  if (file->lock >= SQLITE_LOCK_RESERVED) file->node->db_exclusive = 0;
  if (lock == SQLITE_LOCK_NONE) file->node->db_shared--;
  file->lock = lock;
  return SQLITE_OK;
}

static int file_check_reserved(sqlite3_file *base, int *reserved) {
  *reserved = ((File *)base)->node->db_exclusive;
  return SQLITE_OK;
}

static int file_control(sqlite3_file *base, int op, void *argument) {
  Node *node = ((File *)base)->node;
  switch (op) {
    case HOLDFAST_FCNTL_CATCH_UP:
      return catch_up(node);
    case SQLITE_FCNTL_PERSIST_WAL:
      /* The last connection of a tab is not the last of the database. */
      *(int *)argument = 1;
      return SQLITE_OK;
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
  if (node->level == LEVEL_NONE) return SQLITE_BUSY;
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
  file->base.pMethods = &methods;
  file->node = node;
  file->kind = kind;
  if (kind == FILE_DB) node->references++;
  if (out) *out = flags;
  return SQLITE_OK;
}

static int vfs_delete(sqlite3_vfs *vfs, const char *name, int sync) {
  int kind;
  Node *node = node_of(name, &kind);
  (void)vfs;
  if (!node) return SQLITE_IOERR_DELETE_NOENT;
  if (node->level < LEVEL_EXCLUSIVE) return SQLITE_BUSY;
  if (host.size(node->file[kind]) <= 0) return SQLITE_IOERR_DELETE_NOENT;
  if (host.truncate(node->file[kind], 0)) return SQLITE_IOERR_DELETE;
  if (sync && host.flush(node->file[kind])) return SQLITE_IOERR_DELETE;
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

/* ---- which tables a transaction wrote ------------------------------------ */

#define NO_ROWID 0x7fffffffffffffffLL
typedef struct {
  char *table;
  i64 first_inserted; /* smallest rowid inserted, NO_ROWID: none */
} Change;
typedef struct {
  Change *change;
  int used, room;
  int last; /* most rows go where the one before went */
  int failed;
} Changes;

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
      changes->used++;
    }
    changes->last = i;
  }
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
** frames of others were entered) or 'recovered' (times that the wal-index was
** given up for SQLite's recovery). */
static void sql_status(sqlite3_context *context, int n, sqlite3_value **values) {
  const char *name = (const char *)sqlite3_value_text(values[0]);
  const char *what = (const char *)sqlite3_value_text(values[1]);
  Node *node = name ? node_find(name, sqlite3_value_bytes(values[0])) : 0;
  (void)n;
  if (!node || !what) return;
  if (strcmp(what, "level") == 0) sqlite3_result_int(context, node->level);
  if (strcmp(what, "caught_up") == 0) sqlite3_result_int(context, node->caught_up);
  if (strcmp(what, "recovered") == 0) sqlite3_result_int(context, node->recovered);
  if (strcmp(what, "frames") == 0 && node->regions)
    sqlite3_result_int64(context, ((IndexHeader *)node->region[0])->max_frame);
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
