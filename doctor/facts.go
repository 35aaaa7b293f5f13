package doctor

import "time"

// Why says how a fact stands that is not known.
type Why string

// The reasons. "" is a fact that is known.
const (
	Denied   Why = "denied"   // the credentials may not look
	Missing  Why = "missing"  // there is no such thing
	NotShown Why = "notshown" // a stand-in of AWS does not have it, or none is named for the service
	Broken   Why = "broken"   // the request failed
)

// Fact is something that was asked for.
type Fact[T any] struct {
	Value T
	Why   Why
	Err   string // the cause, a line
}

// Known is a fact that was answered.
func Known[T any](v T) Fact[T] { return Fact[T]{Value: v} }

// AWS is what is known of a store on AWS.
type AWS struct {
	Store   string
	Region  string // where requests go
	Account string // 12 digits, "" when not known
	StandIn bool   // AWS_ENDPOINT_URL* sends requests elsewhere

	Identity     Fact[string] // who asks
	BucketRegion Fact[string]
	Policy       Fact[string] // of the bucket, JSON
	Versioning   Fact[string] // "", Enabled, Suspended
	Lifecycle    Fact[[]Rule]
	Public       Fact[bool] // something of the public access is not blocked
	Encryption   Fact[string]

	Table  Fact[Table]
	TTL    Fact[string] // the attribute that ends an item; "" = none
	Queues map[string]Fact[Queue]

	Worker   Fact[Function]
	Sweeper  Fact[Function]
	Reserved Fact[int] // concurrency of the worker; -1 = none is reserved
	Mapping  Fact[Mapping]
	Loop     Fact[string] // Allow, Terminate
	Limit    Fact[Limit]

	Clock Fact[Clock]
	Race  Fact[Race]
}

// Rule is an enabled rule of a bucket's lifecycle; days are 0 where it does not do that.
type Rule struct {
	ID, Prefix            string
	AbortDays, ExpireDays int
}

// Table is the table as it is.
type Table struct {
	Status  string
	Keys    []string // name:attribute type:HASH or RANGE
	Billing string
}

// Queue is a queue as it is.
type Queue struct {
	ARN        string
	Visibility time.Duration
	Retention  time.Duration
	DeadLetter string // ARN; "" = none
	MaxReceive int
	Messages   int
}

// Function is a Lambda function as it is.
type Function struct {
	State, LastUpdate string
	Timeout           time.Duration
	MemoryMiB         int
}

// Mapping is the event source that feeds the worker function.
type Mapping struct {
	Found    int // mappings of the worker function; what follows is of the first
	State    string
	Source   string // ARN of the queue
	Batch    int
	Most     int // invocations at once; 0 = no bound
	Reported bool
}

// Limit is the account's Lambda concurrency.
type Limit struct{ Concurrency, Unreserved int }

// Clock bounds how far the service's clock is ahead of this machine's.
type Clock struct{ Low, High time.Duration }

// Race is what came of writers that all put one key if it is absent, round after round.
type Race struct {
	Writers int
	Winners []int // of each round
	Lost    int   // rounds after which another's bytes were there than the winner's
	Unknown int   // writers that were told neither yes nor no
	Err     string
}

// Local is what is known of a store on this machine.
type Local struct {
	Folder     string // where it was tried: the store, or the folder it would lie in
	Made       bool   // the store is there
	FileSystem string // the name of a network file system; "" = a local one
	Writable   Fact[bool]
	Free       Fact[int64] // bytes
	FreeFiles  Fact[int64] // inodes; -1 = the file system does not count them
	Sync       Fact[time.Duration]
	Race       Fact[Race]
	Lock       Fact[bool]  // a second holder is refused
	OpenFiles  Fact[int64] // the soft limit
	Skew       Fact[time.Duration]
	Now        time.Time
	Newest     time.Time // of what the store holds; zero = nothing
}
