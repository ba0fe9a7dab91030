package actionstest

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/sas"
)

// Azurite is a running process of azurite-blob.
type Azurite struct {
	address string // of the account
	key     *container.SharedKeyCredential
	stdin   io.Closer
	ended   chan error
}

const account = "actionstest"

// endWithParent makes node end when its standard input does, so that no way of
// ending a test leaves it running.
const endWithParent = `--import=data:text/javascript,process.stdin.resume().on('end',()=>process.exit(0))`

// StartAzurite starts the given program, azurite-blob of the npm package
// azurite, on a free port of 127.0.0.1. It keeps its files in dir, or in memory
// if that is empty, and runs until Stop, or until this process ends.
func StartAzurite(ctx context.Context, program, dir string) (*Azurite, error) {
	secret := make([]byte, 32)
	rand.Read(secret)
	key := base64.StdEncoding.EncodeToString(secret)
	place := []string{"--location", dir}
	if dir == "" {
		place = []string{"--inMemoryPersistence"}
	}
	cmd := exec.Command(program, append(place, "--skipApiVersionCheck", "--silent", "--disableTelemetry",
		"--blobHost", "127.0.0.1", "--blobPort", "0")...)
	cmd.Env = append(os.Environ(), "AZURITE_ACCOUNTS="+account+":"+key, "NODE_OPTIONS="+endWithParent)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("start azurite: %w", err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start azurite: %w", err)
	}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start azurite: %w", err)
	}
	a := &Azurite{stdin: stdin, ended: make(chan error, 1)}
	listening := make(chan string, 1)
	go func() {
		defer close(listening)
		for lines := bufio.NewScanner(stdout); lines.Scan(); {
			if _, address, ok := strings.Cut(lines.Text(), "listens on "); ok {
				listening <- address
			}
		}
		a.ended <- cmd.Wait()
	}()
	select {
	case <-ctx.Done():
		cmd.Process.Kill()
		return nil, fmt.Errorf("start azurite: %w", ctx.Err())
	case address, ok := <-listening:
		if !ok {
			return nil, fmt.Errorf("start azurite: %w: %s", <-a.ended, stderr.String())
		}
		a.address = address + "/" + account
	}
	if a.key, err = container.NewSharedKeyCredential(account, key); err != nil {
		return nil, errors.Join(err, a.Stop())
	}
	return a, nil
}

// Stop ends the process and waits for its end.
func (a *Azurite) Stop() error {
	a.stdin.Close()
	return <-a.ended
}

// blobs is a container in an Azurite.
type blobs struct {
	azurite *Azurite
	name    string
	client  *container.Client
}

func (a *Azurite) newContainer(ctx context.Context) (*blobs, error) {
	name := strings.ToLower(rand.Text())
	client, err := container.NewClientWithSharedKeyCredential(a.address+"/"+name, a.key, nil)
	if err != nil {
		return nil, err
	}
	if _, err := client.Create(ctx, nil); err != nil {
		return nil, err
	}
	return &blobs{a, name, client}, nil
}

func (b *blobs) size(ctx context.Context, blob string) int64 {
	properties, err := b.client.NewBlobClient(blob).GetProperties(ctx, nil)
	if err != nil || properties.ContentLength == nil {
		return -1
	}
	return *properties.ContentLength
}

func (b *blobs) signed(blob string, permissions sas.BlobPermissions, until time.Time) (string, error) {
	query, err := sas.BlobSignatureValues{
		Protocol:      sas.ProtocolHTTPSandHTTP,
		StartTime:     until.Add(-24 * time.Hour),
		ExpiryTime:    until,
		Permissions:   permissions.String(),
		ContainerName: b.name,
		BlobName:      blob,
	}.SignWithSharedKey(b.azurite.key)
	if err != nil {
		return "", err
	}
	return b.azurite.address + "/" + b.name + "/" + blob + "?" + query.Encode(), nil
}
