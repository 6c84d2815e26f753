/*
** Catch-up: the wal-index in this tab's heap is brought up to date from the
** WAL file, by the frames that others committed since this tab last looked.
**
** Formats: SQLite's "WAL-mode File Format" (sqlite.org/walformat.html), and for
** the hash tables the comments of wal.c.
*/
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

/* Whether a WAL's header is whole. The VFS runs on little-endian machines only,
** and so do its checksums. */
#define WAL_MAGIC 0x377f0682u  /* checksums of little-endian words */
static int wal_header_is_sound(const u8 *header) {
  u32 sum[2];
  checksum(header, WAL_HEADER - 8, 0, sum);
  return get32(header) == WAL_MAGIC && sum[0] == get32(header + 24) &&
         sum[1] == get32(header + 28);
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
  /* Slots in the way are those of frames before this one: never more. */
  for (room = i; hash[key]; key = (key + 1) & (HASH_SLOTS - 1))
    if (room-- == 0) return SQLITE_CORRUPT;
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

static void put32(u8 *p, u32 value) {
  p[0] = (u8)(value >> 24);
  p[1] = (u8)(value >> 16);
  p[2] = (u8)(value >> 8);
  p[3] = (u8)value;
}

/* In place of truncating the WAL, when all of it is in the database file and
** flushed: a header with the salts that SQLite has chosen for what comes. No
** frame that is there has them, and later ones are written over those, which
** costs less than making the file longer. A header that was not written whole
** is one of an empty WAL, too. SQLite writes it once more before the first
** frame, and flushes it then: with the old header, frames of both generations
** would be valid. */
static int wal_restart(Node *node) {
  const IndexHeader *published = (const IndexHeader *)node->region[0];
  u8 header[WAL_HEADER];
  u32 sum[2];
  int n = host.read(node->file[FILE_WAL], header, WAL_HEADER, 0), rc;
  if (n < WAL_HEADER) return SQLITE_IOERR_READ;
  put32(header + 12, get32(header + 12) + 1);
  memcpy(header + 16, published->salt, 8);
  checksum(header, WAL_HEADER - 8, 0, sum);
  put32(header + 24, sum[0]);
  put32(header + 28, sum[1]);
  rc = host_write(node->file[FILE_WAL], header, WAL_HEADER, 0);
  if (rc) wal_failed(node);
  return rc;
}

static int enter_news(Node *node) {
  IndexHeader *published, header;
  u32 page_size, sum[2], frame;
  int found = 0, rc;
  u8 wal_header[WAL_HEADER];
  if (node->level == LEVEL_NONE) return SQLITE_BUSY;
  if (node->current || node->exclusive[LOCK_WRITE] || node->regions == 0) return SQLITE_OK;
  published = (IndexHeader *)node->region[0];
  if (!published->is_init) return SQLITE_OK; /* SQLite will recover */
  page_size = (published->page_size & 0xfe00) + ((u32)(published->page_size & 1) << 16);

  /* A WAL with frames is restarted only while nobody else has a lease, so
  ** between two gaps its salts are compared once. An empty one gets its header
  ** from the next writer, whoever reads beside it. */
  if (!node->header_checked || published->max_frame == 0) {
    int n = host.read(node->file[FILE_WAL], wal_header, WAL_HEADER, 0);
    if (n < 0) return SQLITE_IOERR_READ;
    if (n < WAL_HEADER) {
      if (!node->header_checked) index_empty(node);
      node->header_checked = 1;
      return SQLITE_OK;
    }
    node->header_checked = 1;
    /* A header that is not whole, with the old salts: whoever began the WAL anew
    ** died of it. To SQLite that WAL is empty, and what is added behind its
    ** frames would be lost to everybody who opens it. */
    if (memcmp(wal_header + 16, published->salt, 8) != 0 || published->big_endian ||
        get32(wal_header + 8) != page_size || !wal_header_is_sound(wal_header)) {
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
  if (header.max_frame == 0) {
    /* The first frame goes on from the WAL's header. What the index has may be
    ** of the generation before: a restart that was rolled back leaves that. */
    header.frame_checksum[0] = get32(wal_header + 24);
    header.frame_checksum[1] = get32(wal_header + 28);
  }
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
    rc = index_append(node, frame, page);
    if (rc) return rc;
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

/* Enter what others committed since this tab last looked. */
static int catch_up(Node *node) {
  int rc = enter_news(node);
  if (rc == SQLITE_OK) node->stale = 0;
  return rc;
}

static u32 wal_index_frames(const Node *node) {
  return node->regions ? ((const IndexHeader *)node->region[0])->max_frame : 0;
}

static void wal_index_position(const Node *node, u32 *position) {
  memset(position, 0, 3 * sizeof *position);
  if (!node->regions) return;
  position[0] = wal_index_frames(node);
  /* The salts of an empty file are each tab's own. */
  if (!position[0] && host.size(node->file[FILE_WAL]) < WAL_HEADER) return;
  memcpy(position + 1, ((const IndexHeader *)node->region[0])->salt, 2 * sizeof *position);
}

/* Coming down from EXCLUSIVE, the index may describe a restart that was rolled
** back, and so never reached the file: it is compared again before the next
** transaction, or a writer would overwrite frames that others still read. */
static void set_level(Node *node, int level) {
  if (level == LEVEL_NONE || (node->level == LEVEL_EXCLUSIVE && level < LEVEL_EXCLUSIVE)) {
    ahead_forget(node);
    node->header_checked = 0;
    node->current = 0;
  }
  if (level < LEVEL_WRITE) node->current = 0;
  node->restarts = 0;
  if (node->level == LEVEL_NONE) node->stale = node->regions > 0;
  node->level = level;
}
