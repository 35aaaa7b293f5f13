package local

// schemaVersion is state.db's user_version. A database of another version is not
// read: it is a cache, and is built anew.
const schemaVersion = 2

var schema = []string{
	// incarnation: the life of this state. boot: the run of the machine its buckets are
	// of. last_message: the highest id given; an id is never used again.
	`CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID`,

	// task is job/generation/task. until is in ns, 0 = released. proc is the process
	// that holds it; lost is JSON or NULL.
	`CREATE TABLE claims (task TEXT PRIMARY KEY, attempt TEXT, worker TEXT, proc TEXT, fence INT, until INT, vanished INT, idle INT, lost TEXT) WITHOUT ROWID`,

	// block is job/generation/group/level/n/sha256. done has 256 bits. counts has for
	// each position ok and failed as uint32, and is NULL where all are 0.
	`CREATE TABLE blocks (block TEXT PRIMARY KEY, total INT, done BLOB, counts BLOB)`,

	`CREATE TABLE jobs (job TEXT PRIMARY KEY, state TEXT) WITHOUT ROWID`,

	// forget is in ns: the bucket may be dropped then; 0 = never.
	`CREATE TABLE buckets (key TEXT PRIMARY KEY, state BLOB, forget INT) WITHOUT ROWID`,

	// visible is in ns; proc is the process it was last delivered to, or NULL.
	`CREATE TABLE messages (id INTEGER PRIMARY KEY, queue TEXT, job TEXT, body TEXT, visible INT, receives INT, proc TEXT)`,
	`CREATE INDEX messages_visible ON messages (queue, visible)`,

	// How many messages each job has in each queue. Messages that somebody takes away by
	// other means are not waited for either: the database itself counts what goes.
	`CREATE TABLE depths (queue TEXT, job TEXT, n INT, PRIMARY KEY (queue, job)) WITHOUT ROWID`,
	`CREATE TRIGGER message_gone AFTER DELETE ON messages BEGIN UPDATE depths SET n = n - 1 WHERE queue = old.queue AND job = old.job; END`,

	// The processes that messages may have been delivered to.
	`CREATE TABLE receivers (proc TEXT PRIMARY KEY) WITHOUT ROWID`,
}
