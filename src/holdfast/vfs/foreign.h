/*
** A WAL that is not of this database: somebody copied files, or removed one
** and not the other. SQLite replays whatever WAL lies beside a database, and
** the checkpoint after it would destroy what it was replayed over.
**
** Nothing in a WAL names its database, so this compares what must fit. The first
** transaction of a WAL was made on the database file as it is, unless a
** checkpoint has changed the file since: then the file's page 1 is that of some
** transaction in the WAL, byte for byte. Otherwise the first transaction either
** leaves page 1 alone, and with it the size of the database; or its page 1 goes
** on from the file's: the change counter is the same or the next one (a writer
** sets it to that of the page 1 it read, plus one), and the schema, which begins
** on this page, has a later number or is the same to the byte.
**
** A database whose header says that it has a rollback journal never has a WAL:
** SQLite removes it before it writes that header, and writes the other header
** before the first transaction in a WAL. So whatever is in one beside it is of
** the database that was there before.
**
** Formats: sqlite.org/fileformat2.html, sections 1.3 and 4.1.
*/
#define DB_HEADER 100

/* What a database header has at these offsets. */
enum {
  AT_PAGE_SIZE = 16,
  AT_WRITE_VERSION = 18, /* 1: a rollback journal; 2: a WAL */
  AT_RESERVED = 20,
  AT_COUNTER = 24,
  AT_PAGES = 28,
  AT_SCHEMA = 40,
  AT_ENCODING = 56 /* 0 until there is a table */
};

/* Whether `next` can be the page 1 that a transaction made of `page`. */
static int goes_on(const u8 *page, const u8 *next, u32 page_size) {
  u32 counter = get32(page + AT_COUNTER), schema = get32(page + AT_SCHEMA);
  u32 next_counter = get32(next + AT_COUNTER), next_schema = get32(next + AT_SCHEMA);
  if (memcmp(page + AT_PAGE_SIZE, next + AT_PAGE_SIZE, 2) != 0) return 0;
  if (page[AT_RESERVED] != next[AT_RESERVED]) return 0;
  if (get32(page + AT_ENCODING) && get32(page + AT_ENCODING) != get32(next + AT_ENCODING)) return 0;
  if (next_counter != counter && next_counter != counter + 1) return 0;
  if (next_schema != schema) return next_schema > schema;
  return memcmp(page + DB_HEADER, next + DB_HEADER, page_size - DB_HEADER) == 0;
}

/* Whether the WAL is of another database: 1, 0, or HOST_ERROR. Asked while
** this tab may read and has no connection yet. */
static int wal_is_foreign(const Node *node) {
  u8 wal[WAL_HEADER], *db, *frame;
  u32 page_size, sum[2], number = 0;
  int commits = 0, page_1 = 0, fits = 0, without = 0, n, size;
  n = host.read(node->file[FILE_WAL], wal, WAL_HEADER, 0);
  if (n < 0) return HOST_ERROR;
  /* A WAL without a sound header is one without frames. */
  if (n < WAL_HEADER || !wal_header_is_sound(wal)) return 0;
  sum[0] = get32(wal + 24);
  sum[1] = get32(wal + 28);
  page_size = get32(wal + 8);
  if (page_size < 512 || page_size > 65536 || (page_size & (page_size - 1))) return 0;
  size = (int)page_size + FRAME_HEADER;
  db = sqlite3_malloc((int)page_size + size);
  if (!db) return HOST_ERROR;
  frame = db + page_size;
  memset(db, 0, page_size);
  n = host.read(node->file[FILE_DB], db, (int)page_size, 0);
  /* A database that was never written: SQLite throws its WAL away. */
  if (n == 0) fits = 1;
  if (n > AT_WRITE_VERSION) without = db[AT_WRITE_VERSION] == 1;
  while (n >= 0 && !fits) {
    const u8 *page = frame + FRAME_HEADER;
    n = host.read(node->file[FILE_WAL], frame, size, WAL_HEADER + (double)number++ * size);
    if (n < size || memcmp(frame + 8, wal + 16, 8) != 0) break;
    checksum(frame, 8, sum, sum);
    checksum(page, (int)page_size, sum, sum);
    if (sum[0] != get32(frame + 16) || sum[1] != get32(frame + 20)) break;
    if (get32(frame) == 1) {
      page_1 = 1;
      fits = memcmp(page, db, page_size) == 0 || (!commits && goes_on(db, page, page_size));
      fits = fits && !without;
    }
    if (get32(frame + 4)) {
      if (!page_1 && get32(frame + 4) == get32(db + AT_PAGES)) fits = !without;
      commits++;
    }
  }
  sqlite3_free(db);
  if (n < 0) return HOST_ERROR;
  return commits && !fits;
}
