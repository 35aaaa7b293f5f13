package manifest

import (
	"fmt"
	"path"
	"strings"

	"hayrick"
)

// Resolve is what a URI of a job file means for everybody: a relative path lies in
// folder, the working directory of the submission.
func Resolve(folder, uri string) string {
	if folder == "" || uri == "" || path.IsAbs(uri) || strings.Contains(uri, "://") {
		return uri
	}
	final := ""
	if strings.HasSuffix(uri, "/") {
		final = "/"
	}
	return path.Join(folder, uri) + final
}

// OutputURI is the folder that a generation of a run that was submitted in folder is
// published in. Generations above 0 have a folder of their own beside it, so that no
// folder ever holds two.
func OutputURI(def hayrick.JobDefinition, folder, job string, generation int) string {
	uri := Resolve(folder, strings.ReplaceAll(def.Output.URI, "$(run.id)", job))
	if generation == 0 {
		return uri
	}
	return fmt.Sprintf("%s.g%d/", strings.TrimSuffix(uri, "/"), generation)
}

// SuccessName is the last object that is published.
const SuccessName = "_SUCCESS"

// SchemaSuccess is the schema of Success.
const SchemaSuccess = "hayrick.success/v1"

// Success is the content of _SUCCESS.
type Success struct {
	Schema        string `json:"schema"`
	JobID         string `json:"job_id"`
	Generation    int    `json:"generation"`
	OutcomeSHA256 string `json:"outcome_sha256"`
}

// PublishedName is the name of a part or list in the output folder. Where runs
// append to one folder it carries the run's id, or they would overwrite each other's.
func PublishedName(def hayrick.JobDefinition, job, name string) string {
	if def.Output.IfExists != "append" {
		return name
	}
	folder, file := path.Split(name)
	return folder + job + "-" + file
}
