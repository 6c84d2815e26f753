/*
** What the other parts stand on: the host, which has the file handles, and the
** nodes, one per database and worker (a "tab" here).
*/
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
#define FIRST_READER 3     /* SQLite's WAL_READ_LOCK(0): reading the database file alone */
#define LOCK_READERS 4     /* first of the reader slots that a restart takes */
#define WAL_HEADER 32
#define FRAME_HEADER 24
#define APPEND_ROOM (128 * 1024)
#define WAL_ROOM (64 * 1024) /* at most APPEND_ROOM */

typedef struct Node Node;
struct Node {
  Node *next;
  char *name;
  int file[FILE_KINDS];
  int level;
  int current;         /* caught up at level >= WRITE: nobody else can add */
  int stale;           /* there is a wal-index, and no catch-up since level was NONE */
  int header_checked;  /* the WAL's salts were compared since level was NONE */
  int restarts;        /* the next truncation of the WAL begins it anew in place */
  int references;      /* open main database files */
  int db_shared;       /* of them, how many hold SQLite's SHARED lock */
  int db_writer;       /* what one of them holds of RESERVED or more; else 0 */
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
  int append_commit;   /* a commit frame's header came, under this write lock */
  i64 wal_room;        /* the WAL's size when it was last asked for; only a hint */
  u8 *ahead;           /* of the database file, read ahead: AHEAD_ROOM bytes */
  int ahead_length;    /* of them, how many are the file's */
  i64 ahead_at;        /* where the first belongs */
  i64 ahead_next;      /* end of the last read: a read from there on is a scan's */
  /* for status and for tests */
  int caught_up, recovered;
};

static Node *nodes;

typedef struct {
  sqlite3_file base;
  Node *node;
  int kind;
  int lock;             /* SQLite's lock on the database file */
  int removes_wal;      /* 1: closing the WAL deletes it */
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
  sqlite3_free(node->ahead);
  node->region = 0;
  node->regions = 0;
  node->frame = 0;
  node->frame_size = 0;
  node->append = 0;
  node->append_length = 0;
  node->append_next = -1;
  node->append_commit = 0;
  node->wal_room = 0;
  node->ahead = 0;
  node->ahead_length = 0;
  node->ahead_next = -1;
  node->header_checked = 0;
  node->current = 0;
  node->stale = 0;
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
