// What Python says of its methods and types, in JavaScript's words. Part of holdfast.mjs.

// Everything else with an underscore is the application's or SQLite's own.
const WORDS = {
  "holdfast.open": "open",
  "holdfast.persist": "navigator.storage.persist",
  "holdfast.import_database": "importDatabase",
  "holdfast.delete_database": "deleteDatabase",
  "holdfast.databases": "databases",
  ctx: "context",
  before_create: "beforeCreate",
  busy_timeout: "busyTimeout",
  create_diff_trigger: "createDiffTrigger",
  execute_many: "executeMany",
  export_chunks: "exportChunks",
  fetch_all: "fetchAll",
  fetch_one: "fetchOne",
  fetch_value: "fetchValue",
  ignore_check_constraints: "ignoreCheckConstraints",
  import_database: "importDatabase",
  delete_database: "deleteDatabase",
  insert_only: "insertOnly",
  local_only: "localOnly",
  max_backlog: "maxBacklog",
  on_change: "onChange",
  on_error: "onError",
  on_progress: "onProgress",
  only_changed: "onlyChanged",
  persist_triggers: "persistTriggers",
  read_only: "readOnly",
  read_transaction: "readTransaction",
  seq_of_params: "many",
  track_table_diff: "trackTableDiff",
  view_name: "viewName",
  with_diff: "withDiff",
  with_extracted_diff: "withExtractedDiff",
  write_transaction: "transaction",
  None: "null",
  NoneType: "null",
  True: "true",
  False: "false",
  dict: "object",
  float: "number",
  int: "number",
  list: "array",
  mapping: "object",
  sequence: "array",
  str: "string",
  tuple: "array",
};
// The last two: what stands in quotes is left as it is; an apostrophe is none.
const words = Object.keys(WORDS).map((word) => word.replace(".", "\\."));
const SAID = new RegExp(
  `(?<![\\w.'"])(?:(an?) )?(${words.join("|")})(?!\\w)|(?<!\\w)'(?:[^'\\\\]|\\\\.)*'|"(?:[^"\\\\]|\\\\.)*"`,
  "gs",
);

export const inJavaScript = (message) =>
  message.replace(SAID, (found, article, word) => {
    if (word === undefined) return found;
    const said = WORDS[word];
    return article ? `${articleOf(said)} ${said}` : said;
  });

// A Uint8Array, a URL.
export const articleOf = (word) => (/^[aeio]/i.test(word) ? "an" : "a");
