package standins

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// localstack/env sends the services where localstack/up starts them: to its own ports,
// or to those that were chosen; and to nothing that was named before.
func TestTheEnvironmentFollowsThePorts(t *testing.T) {
	const closed = "AWS_ENDPOINT_URL=http://127.0.0.1:1"
	for _, c := range []struct {
		chosen   []string
		argument string
		want     []string
	}{
		{nil, "", []string{"S3=http://127.0.0.1:7070", "DYNAMODB=http://127.0.0.1:8000", "SQS=http://127.0.0.1:4566"}},
		{nil, "minio", []string{"S3=http://127.0.0.1:9000", "DYNAMODB=http://127.0.0.1:8000", "SQS=http://127.0.0.1:4566"}},
		{[]string{"HAYRICK_S3_PORT=1", "HAYRICK_DYNAMODB_PORT=2", "HAYRICK_SQS_PORT=3"}, "", []string{"S3=http://127.0.0.1:1", "DYNAMODB=http://127.0.0.1:2", "SQS=http://127.0.0.1:3"}},
		{[]string{"HAYRICK_MINIO_PORT=4"}, "minio", []string{"S3=http://127.0.0.1:4", "DYNAMODB=http://127.0.0.1:8000", "SQS=http://127.0.0.1:4566"}},
	} {
		cmd := exec.Command("bash", "-c", `. ../../localstack/env `+c.argument+`; env`)
		cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), closed}, c.chosen...)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		for _, w := range c.want {
			if !strings.Contains(string(out), "AWS_ENDPOINT_URL_"+w+"\n") {
				t.Errorf("%v %s: no %s in\n%s", c.chosen, c.argument, w, out)
			}
		}
		if strings.Contains(string(out), closed) {
			t.Errorf("%v %s: what was named before is still there", c.chosen, c.argument)
		}
	}
	cmd := exec.Command("bash", "-c", `. ../../localstack/env moto; env`)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HAYRICK_MOTO_PORT=5"}
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "AWS_ENDPOINT_URL=http://127.0.0.1:5\n") || strings.Contains(string(out), "AWS_ENDPOINT_URL_S3=") {
		t.Errorf("moto: %v\n%s", err, out)
	}
}
