package actionstest

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/sas"
)

// Disk is a directory of blobs, where measuring a client must not measure an
// [Azurite]: it serves as much as the machine can copy. It understands what clients
// of the cache send, and unlike Azure it believes everything and looks at no
// signature.
type Disk struct {
	// Dir is where the blobs are files.
	Dir string
	// Address, without a slash at the end, is where the Disk is served, by a handler
	// that leaves the path as it is.
	Address string
}

func (d *Disk) size(_ context.Context, blob string) int64 {
	info, err := os.Stat(filepath.Join(d.Dir, blob))
	if err != nil {
		return -1
	}
	return info.Size()
}

func (d *Disk) signed(blob string, permissions sas.BlobPermissions, until time.Time) (string, error) {
	// Azure's own clients expect an account, a container and a signature in an address.
	query := url.Values{"sp": {permissions.String()}, "se": {until.UTC().Format(time.RFC3339)}, "sig": {"none"}}
	return d.Address + "/" + account + "/disk/" + blob + "?" + query.Encode(), nil
}

// ServeHTTP answers GET and HEAD, of a range or of all, and PUT: of a blob, of a
// block, of the list of its blocks.
func (d *Disk) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	file := filepath.Join(d.Dir, path.Base(r.URL.Path))
	query := r.URL.Query()
	block := func(id string) string { return file + "." + hex.EncodeToString([]byte(id)) }
	w.Header().Set("ETag", `"`+path.Base(r.URL.Path)+`"`)
	w.Header().Set("X-Ms-Request-Id", rand.Text())
	var err error
	switch {
	case r.Method != http.MethodPut:
		if ranged := r.Header.Get("X-Ms-Range"); ranged != "" {
			r.Header.Set("Range", ranged)
		}
		w.Header().Set("X-Ms-Blob-Type", "BlockBlob")
		w.Header().Set("Content-Type", "application/octet-stream")
		http.ServeFile(w, r, file)
		return
	case query.Get("comp") == "block":
		err = write(block(query.Get("blockid")), r.Body)
	case query.Get("comp") == "blocklist":
		var list struct {
			IDs []string `xml:",any"`
		}
		if err = xml.NewDecoder(r.Body).Decode(&list); err == nil {
			for i, id := range list.IDs {
				list.IDs[i] = block(id)
			}
			err = join(file, list.IDs)
		}
	default:
		err = write(file, r.Body)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.WriteHeader(http.StatusCreated)
}

func write(name string, body io.Reader) error {
	file, err := os.Create(name)
	if err != nil {
		return err
	}
	defer file.Close()
	if _, err := io.Copy(file, body); err != nil {
		return fmt.Errorf("store a block: %w", err)
	}
	return file.Close()
}

// join makes a file of others, which are no more after that.
func join(name string, parts []string) error {
	file, err := os.Create(name)
	if err != nil {
		return err
	}
	defer file.Close()
	for _, name := range parts {
		part, err := os.Open(name)
		if err != nil {
			return err
		}
		_, err = io.Copy(file, part)
		part.Close()
		if err != nil {
			return err
		}
		if err := os.Remove(name); err != nil {
			return err
		}
	}
	return file.Close()
}
