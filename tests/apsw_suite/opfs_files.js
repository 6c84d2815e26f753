// The databases' OPFS files as files of the folder `at` of Pyodide's own file system, so that what
// Python's open(), os.path.exists() and os.remove() do there is done to them. Other files there are
// what they always are: memory.
//
// numbers: file name -> the number of its handle. As for the VFS, a file exists when it has bytes.
(FS, at, numbers) => {
  const { MEMFS } = FS.filesystems;
  const { node: folder } = FS.lookupPath(at);
  const memory = folder.node_ops;
  const host = globalThis.holdfastHost;
  const numberOf = (name) => numbers.get(name);

  const node_ops = {
    getattr(node) {
      const time = new Date(0);
      const size = host.size(node.file);
      return {
        dev: 1,
        ino: node.id,
        mode: node.mode,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        size,
        atime: time,
        mtime: time,
        ctime: time,
        blksize: 4096,
        blocks: Math.ceil(size / 4096),
      };
    },
    setattr(node, { mode, size }) {
      if (mode !== undefined) node.mode = mode;
      if (size === undefined) return;
      if (size !== 0) throw new FS.ErrnoError(28); // EINVAL
      host.empty(node.file);
    },
  };

  const stream_ops = {
    read(stream, buffer, offset, length, position) {
      const bytes = host.read(stream.node.file, position, length);
      buffer.set(bytes, offset);
      return bytes.length;
    },
    write(stream, buffer, offset, length, position) {
      const bytes = buffer.slice(offset, offset + length);
      if (!host.write(stream.node.file, bytes, position)) throw new FS.ErrnoError(51); // ENOSPC
      return length;
    },
    llseek(stream, offset, whence) {
      const from = [0, stream.position, host.size(stream.node.file)][whence];
      if (from + offset < 0) throw new FS.ErrnoError(28);
      return from + offset;
    },
  };

  // Never remembered: what was there may be gone at the next look.
  function fileOf(parent, name, mode) {
    const node = MEMFS.createNode(parent, name, mode, 0);
    delete parent.contents[name];
    FS.hashRemoveNode(node);
    return Object.assign(node, { file: numberOf(name), node_ops, stream_ops });
  }

  folder.node_ops = {
    ...memory,
    lookup(parent, name) {
      if (numberOf(name) === undefined) return memory.lookup(parent, name);
      if (host.size(numberOf(name)) === 0) throw new FS.ErrnoError(44); // ENOENT
      return fileOf(parent, name, 0o100600);
    },
    mknod(parent, name, mode, dev) {
      if (numberOf(name) === undefined) return memory.mknod(parent, name, mode, dev);
      return fileOf(parent, name, mode);
    },
    unlink(parent, name) {
      if (numberOf(name) === undefined) memory.unlink(parent, name);
      else host.empty(numberOf(name));
    },
  };
};
