package manifest

import (
	"strings"

	"hayrick"
)

// SchemaPlan is the schema of Plan.
const SchemaPlan = "hayrick.plan/v1"

// Plan is the submission: the commit that makes the job exist.
type Plan struct {
	Schema           string    `json:"schema"`
	JobID            string    `json:"job_id"`
	DefinitionSHA256 string    `json:"definition_sha256"`
	BundleSHA256     string    `json:"bundle_sha256"` // "" when the job has no folder
	CodeVersion      string    `json:"code_version"`  // binary + bundle digest
	Job              JobFields `json:"job"`
	Input            []InputID `json:"input"`
	Items            int64     `json:"items"`
	Group            Group     `json:"group"`
	Shuffle          *Shuffle  `json:"shuffle,omitempty"` // nil: items stand as in the input
	SubmittedAt      Time      `json:"submitted_at"`
}

// JobFields are the seed's fields of a job manifest that are fixed at submission.
type JobFields struct {
	JobType    string `json:"job_type"`
	Handler    string `json:"handler"`
	GitCommit  string `json:"git_commit"`
	GitDirty   bool   `json:"git_dirty"`
	ConfigFile string `json:"config_file"`
	// Folder is where relative paths of the job file lie: the working directory of the
	// submission. "" = that of whoever reads.
	Folder      string `json:"folder,omitempty"`
	BatchSize   int    `json:"batch_size"`
	SubmittedBy string `json:"submitted_by"`
	Run         int    `json:"run"` // how many runs of the same definition and input came before
}

// InputID says what one input object, or folder of them, was when it was indexed.
type InputID struct {
	URI    string `json:"uri"`    // as the job file names it
	Object string `json:"object"` // what batches name: the same, resolved, or store:input/...
	Pin    Pin    `json:"pin"`    // the object's identity at indexing; of a folder, that of its listing
	Items  int64  `json:"items"`
	SHA256 string `json:"sha256,omitempty"` // of a copy in the store
	Bytes  int64  `json:"bytes,omitempty"`  // of a copy in another form, JSON lines of a CSV file for one; 0 = those of the pin

	// Of a folder: the objects that were read, in the order of their ordinals.
	Objects    []InputID `json:"objects,omitempty"`
	ObjectsRef *Ref      `json:"objects_ref,omitempty"`
}

// Length is how many bytes the object has that batches name.
func (in InputID) Length() int64 {
	if in.Bytes > 0 {
		return in.Bytes
	}
	return in.Pin.Size
}

// InlineObjects is InlineList for the objects of a folder.
const InlineObjects = 1024

// Pin identifies a version of an input. Equal pins mean an unchanged input; a
// batch's SHA-256 decides when they differ.
type Pin struct {
	Size     int64  `json:"size"`
	MTime    Time   `json:"mtime"`
	DevInode string `json:"dev_inode,omitempty"`
	ETag     string `json:"etag,omitempty"`    // of a folder: "list:" and the SHA-256 of its listing
	Version  string `json:"version,omitempty"` // where the store keeps versions; reads ask for it
}

// IsFolder says that uri names a folder of inputs rather than one.
func IsFolder(uri string) bool { return strings.HasSuffix(uri, "/") }

// IsSource says whether what lies under name in a folder of inputs is one of them.
// What begins with a dot or an underscore is somebody's bookkeeping (_SUCCESS, .git,
// .hayrick), and a name that ends in a slash is how consoles make folders.
func IsSource(name string) bool {
	for part := range strings.SplitSeq(name, "/") {
		if part == "" || part[0] == '.' || part[0] == '_' {
			return false
		}
	}
	return true
}

// SchemaJob is the schema of JobManifest.
const SchemaJob = "hayrick.job/v1"

// JobManifest is the seed's job manifest, a view.
type JobManifest struct {
	Schema       string   `json:"schema"`
	JobID        string   `json:"job_id"`
	JobType      string   `json:"job_type"`
	Handler      string   `json:"handler"`
	GitCommit    string   `json:"git_commit"`
	GitDirty     bool     `json:"git_dirty"`
	ConfigFile   string   `json:"config_file"`
	ConfigSHA256 string   `json:"config_sha256"`
	InputFile    string   `json:"input_file"`
	BatchSize    int      `json:"batch_size"`
	TaskCount    int64    `json:"task_count"`
	Items        int64    `json:"items"`
	SlurmArrayID *string  `json:"slurm_array_id"`
	SubmittedAt  Time     `json:"submitted_at"`
	SubmittedBy  string   `json:"submitted_by"`
	Phases       []string `json:"phases"`
	Status       string   `json:"status"`
	Generation   int      `json:"generation"`
}

// JobView derives the job manifest from the plan and the two facts that move.
// slurm_array_id is the only field that commits do not determine.
func JobView(p Plan, status string, generation int, slurmArrayID *string) JobManifest {
	m := JobManifest{
		Schema: SchemaJob, JobID: p.JobID, JobType: p.Job.JobType, Handler: p.Job.Handler,
		GitCommit: p.Job.GitCommit, GitDirty: p.Job.GitDirty, ConfigFile: p.Job.ConfigFile,
		ConfigSHA256: p.DefinitionSHA256, BatchSize: p.Job.BatchSize, TaskCount: p.Group.Tasks,
		Items: p.Items, SlurmArrayID: slurmArrayID, SubmittedAt: p.SubmittedAt,
		SubmittedBy: p.Job.SubmittedBy, Phases: []string{"initial", "retry", "aggregation"},
		Status: status, Generation: generation,
	}
	if len(p.Input) > 0 {
		m.InputFile = p.Input[0].URI
	}
	return m
}

// SchemaControl is the schema of Control.
const SchemaControl = "hayrick.control/v1"

// The orders.
const (
	OrderPause  = "pause"
	OrderResume = "resume"
	OrderCancel = "cancel"

	OrderRedrive = "redrive" // opens its generation: items run again
	OrderMerge   = "merge"   // opens its generation: nothing runs again, all is merged anew
	OrderPurge   = "purge"   // takes the place of its generation: nothing opens the job again
)

// Control is the n-th order: put-if-absent at the first free n, applied in order
// of n. An automatic pause names its Rule and Group; a resume may raise the Budget.
type Control struct {
	Schema     string `json:"schema"`
	JobID      string `json:"job_id"`
	N          int    `json:"n"`
	Order      string `json:"order"`
	Generation int    `json:"generation"`
	Rule       string `json:"rule,omitempty"`
	Group      string `json:"group,omitempty"`
	Reason     string `json:"reason,omitempty"` // one line for people, ends in what to do
	By         string `json:"by"`
	At         Time   `json:"at"`
	// Budget is what the run may cost from now on, in place of the job file's.
	Budget *hayrick.Budget `json:"budget,omitempty"`

	// Of an order that opens its generation: which of the items that were given up run
	// again (Takes), by class, by published list and by ordinal; and the definition and
	// the bundle from then on, where they are others than before.
	Classes          []string `json:"classes,omitempty"`
	Lists            []string `json:"lists,omitempty"`
	Ordinals         []int64  `json:"ordinals,omitempty"` // ascending
	OrdinalsRef      *Ref     `json:"ordinals_ref,omitempty"`
	PermanentToo     bool     `json:"permanent_too,omitempty"`
	DefinitionSHA256 string   `json:"definition_sha256,omitempty"`
	BundleSHA256     string   `json:"bundle_sha256,omitempty"`
}
