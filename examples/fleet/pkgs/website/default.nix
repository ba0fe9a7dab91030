{ runCommand }:

runCommand "website"
  {
    src = ./pages;
    meta.description = "What hetzner serves";
  }
  ''
    for page in "$src"/*.html; do
      echo "publishing ''${page##*/}"
      while IFS= read -r line; do printf '%s\n' "$line"; done < "$page" >> "$out"
    done
  ''
