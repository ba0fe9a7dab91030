{ pkgs }:
{
  # Without a host the script does nothing, but all of it is parsed.
  backup-parses = pkgs.runCommand "backup-parses" { inherit (pkgs) backup; } ''
    set --
    . "$backup"
    echo "backup parses" > "$out"
  '';

  website-links = pkgs.runCommand "website-links" { inherit (pkgs.website) src; } ''
    for page in "$src"/*.html; do
      echo "checking ''${page##*/}"
      while IFS= read -r line; do
        case $line in
        *'href="'*)
          link=''${line#*href=\"}
          link=''${link%%\"*}
          if [ ! -f "$src/$link" ]; then
            echo "''${page##*/} links to $link, which does not exist" >&2
            exit 1
          fi
          ;;
        esac
      done < "$page"
    done
    echo "all links lead somewhere" > "$out"
  '';
}
