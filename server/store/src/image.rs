//! Images and the references that name them: rows of `images` and `image_references`.

use banger_core::image::{Image, Platform, TakeOver};
use banger_core::{Digest, ImageId, Name, Owner};
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{Sqlite, Transaction};

use crate::error::failed;
use crate::row::{Columns, count, integer, json, nanoseconds};
use crate::store::{DeleteOutcome, Durability, users, users_of};
use crate::{Page, Store, StoreError};

/// What became of a new reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TagOutcome {
    /// The image has it; this is the image as it is kept.
    Tagged(Box<Image>),
    /// Another image has it, and it was not to be taken over.
    Taken,
    /// There is no such image.
    Missing,
}

/// What became of a reference that was to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UntagOutcome {
    /// It names nothing any more; its image has others.
    Untagged,
    /// It is the only one of its image, and stays.
    Last,
    /// Nothing has it.
    Missing,
}

const INSERT: &str = "insert the image";

const USERS: &str = "SELECT id, name FROM vms WHERE image_id = ? ORDER BY name LIMIT ?";

const OWN_USERS: &str =
    "SELECT id, name FROM vms WHERE image_id = ? AND owner = ? ORDER BY name LIMIT ?";

macro_rules! select {
    ($tail:literal) => {
        concat!(
            "SELECT id, digest, os, architecture, variant, config, layers, rootfs_size_bytes, \
             rootfs_allocated_bytes, origin, kernel, create_time, (SELECT json_group_array(reference ORDER BY reference) \
             FROM image_references WHERE image_id = images.id) AS reference_list FROM images ",
            $tail
        )
    };
}

fn decode(row: &SqliteRow) -> Result<Image, StoreError> {
    let columns = Columns::new(row, "images", "id");
    Ok(Image {
        id: columns.parse("id")?,
        references: columns.json("reference_list")?,
        digest: columns.parse("digest")?,
        platform: Platform {
            os: columns.get("os")?,
            architecture: columns.get("architecture")?,
            variant: columns.get("variant")?,
        },
        config: columns.json("config")?,
        layers: columns.json("layers")?,
        rootfs_size_bytes: columns.unsigned("rootfs_size_bytes")?,
        rootfs_allocated_bytes: columns.unsigned("rootfs_allocated_bytes")?,
        origin: columns.get("origin")?,
        kernel: columns.parse_optional("kernel")?,
        create_time: columns.time("create_time")?,
    })
}

fn decode_all(rows: &[SqliteRow]) -> Result<Vec<Image>, StoreError> {
    rows.iter().map(decode).collect()
}

impl Store {
    /// Adds an image and makes `reference` name it. Where the same digest is kept for the same platform
    /// already, that image stays as it is, but for its kernel where a new one is given. Returns the image as it is kept, with all its references;
    /// `image.references` is not looked at. A reference of another image is taken from it. Safe from a crash of the
    /// host when it returns.
    ///
    /// # Errors
    /// `IdTaken` when other content has the id.
    pub async fn insert_image(&self, image: &Image, reference: &str) -> Result<Image, StoreError> {
        let mut transaction = self.begin(Durability::AtOnce, INSERT).await?;
        let id = keep(&mut transaction, image).await?;
        named(transaction, reference, &id).await
    }

    /// As [`Store::insert_image`], but `None`, and nothing changes, where another image has the reference; one whose
    /// origin begins with `but_of` may be robbed of it.
    ///
    /// # Errors
    /// `IdTaken` when other content has the id.
    pub async fn insert_image_unless_taken(
        &self,
        image: &Image,
        reference: &str,
        but_of: Option<&str>,
    ) -> Result<Option<Image>, StoreError> {
        let mut transaction = self.begin(Durability::AtOnce, INSERT).await?;
        let id = keep(&mut transaction, image).await?;
        if let Some(owner) = owner(&mut transaction, reference).await?
            && owner != id
            && !is_of(&mut transaction, &owner, but_of).await?
        {
            return Ok(None);
        }
        named(transaction, reference, &id).await.map(Some)
    }

    /// The image with this id.
    ///
    /// # Errors
    /// Of the database only.
    pub async fn get_image(&self, id: ImageId) -> Result<Option<Image>, StoreError> {
        let row = sqlx::query(select!("WHERE id = ?"))
            .bind(id.to_string())
            .fetch_optional(self.reader())
            .await
            .map_err(failed("read the image"))?;
        row.as_ref().map(decode).transpose()
    }

    /// The image that this reference names. The reference is compared as text: canonicalise it first.
    ///
    /// # Errors
    /// Of the database only.
    pub async fn find_image_by_reference(
        &self,
        reference: &str,
    ) -> Result<Option<Image>, StoreError> {
        let row = sqlx::query(select!(
            "WHERE id = (SELECT image_id FROM image_references WHERE reference = ?)"
        ))
        .bind(reference)
        .fetch_optional(self.reader())
        .await
        .map_err(failed("find the image"))?;
        row.as_ref().map(decode).transpose()
    }

    /// The images with this digest, newest first: one for each platform.
    ///
    /// # Errors
    /// Of the database only.
    pub async fn find_images_by_digest(&self, digest: &Digest) -> Result<Vec<Image>, StoreError> {
        let rows = sqlx::query(select!("WHERE digest = ? ORDER BY id DESC"))
            .bind(digest.to_string())
            .fetch_all(self.reader())
            .await
            .map_err(failed("find the image"))?;
        decode_all(&rows)
    }

    /// A page of images, newest first.
    ///
    /// # Errors
    /// Of the database only.
    pub async fn list_images(&self, page: Page) -> Result<Vec<Image>, StoreError> {
        let rows = sqlx::query(select!(
            "WHERE ?1 IS NULL OR id < ?1 ORDER BY id DESC LIMIT ?2"
        ))
        .bind(page.before)
        .bind(page.limit)
        .fetch_all(self.reader())
        .await
        .map_err(failed("list the images"))?;
        decode_all(&rows)
    }

    /// Every image, oldest first.
    ///
    /// # Errors
    /// Of the database only.
    pub async fn all_images(&self) -> Result<Vec<Image>, StoreError> {
        let rows = sqlx::query(select!("ORDER BY id"))
            .fetch_all(self.reader())
            .await
            .map_err(failed("list the images"))?;
        decode_all(&rows)
    }

    /// How many images there are.
    ///
    /// # Errors
    /// Of the database only.
    pub async fn count_images(&self) -> Result<u64, StoreError> {
        sqlx::query_scalar("SELECT count(*) FROM images")
            .fetch_one(self.reader())
            .await
            .map(count)
            .map_err(failed("count the images"))
    }

    /// Gives an image another reference. Safe from a crash of the host when it returns.
    ///
    /// # Errors
    /// Of the database only.
    pub async fn tag_image(
        &self,
        id: ImageId,
        reference: &str,
        take_over: TakeOver,
    ) -> Result<TagOutcome, StoreError> {
        const DURING: &str = "tag the image";
        let id = id.to_string();
        let mut transaction = self.begin(Durability::AtOnce, DURING).await?;
        let exists: bool = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM images WHERE id = ?)")
            .bind(&id)
            .fetch_one(&mut *transaction)
            .await
            .map_err(failed(DURING))?;
        if !exists {
            return Ok(TagOutcome::Missing);
        }
        let owner = owner(&mut transaction, reference).await?;
        if owner.is_some_and(|owner| owner != id) && take_over != TakeOver::Allowed {
            return Ok(TagOutcome::Taken);
        }
        point(&mut transaction, reference, &id).await?;
        let row = sqlx::query(select!("WHERE id = ?"))
            .bind(&id)
            .fetch_one(&mut *transaction)
            .await
            .map_err(failed(DURING))?;
        transaction.commit().await.map_err(failed(DURING))?;
        Ok(TagOutcome::Tagged(Box::new(decode(&row)?)))
    }

    /// Takes a reference from an image that has others. Safe from a crash of the host when it returns.
    ///
    /// # Errors
    /// Of the database only.
    pub async fn untag_image(&self, reference: &str) -> Result<UntagOutcome, StoreError> {
        const DURING: &str = "untag the image";
        let mut transaction = self.begin(Durability::AtOnce, DURING).await?;
        let Some(owner) = owner(&mut transaction, reference).await? else {
            return Ok(UntagOutcome::Missing);
        };
        let count: i64 =
            sqlx::query_scalar("SELECT count(*) FROM image_references WHERE image_id = ?")
                .bind(&owner)
                .fetch_one(&mut *transaction)
                .await
                .map_err(failed(DURING))?;
        if count == 1 {
            return Ok(UntagOutcome::Last);
        }
        sqlx::query("DELETE FROM image_references WHERE reference = ?")
            .bind(reference)
            .execute(&mut *transaction)
            .await
            .map_err(failed(DURING))?;
        transaction.commit().await.map_err(failed(DURING))?;
        Ok(UntagOutcome::Untagged)
    }

    /// The VMs that use an image, by name, at most 16; those of `owner` alone, where one is given.
    ///
    /// # Errors
    /// Of the database only.
    pub async fn vms_of_image(
        &self,
        id: ImageId,
        owner: Option<&Owner>,
    ) -> Result<Vec<Name>, StoreError> {
        const DURING: &str = "find the VMs that use the image";
        let id = id.to_string();
        let mut reader = self.reader().acquire().await.map_err(failed(DURING))?;
        match owner {
            None => users(&mut reader, USERS, &id).await,
            Some(owner) => users_of(&mut reader, OWN_USERS, &id, owner).await,
        }
    }

    /// Removes an image with its references, unless VMs need it. Safe from a crash of the host when it
    /// returns.
    ///
    /// **Remove its files afterwards**: a file without a row is swept, a row without its file is a lie.
    ///
    /// # Errors
    /// Of the database only.
    pub async fn delete_image(&self, id: ImageId) -> Result<DeleteOutcome, StoreError> {
        const DURING: &str = "delete the image";
        let id = id.to_string();
        let mut transaction = self.begin(Durability::AtOnce, DURING).await?;
        let users = users(&mut transaction, USERS, &id).await?;
        if !users.is_empty() {
            return Ok(DeleteOutcome::UsedBy(users));
        }
        let done = sqlx::query("DELETE FROM images WHERE id = ?")
            .bind(&id)
            .execute(&mut *transaction)
            .await
            .map_err(failed(DURING))?;
        transaction.commit().await.map_err(failed(DURING))?;
        Ok(match done.rows_affected() {
            0 => DeleteOutcome::Missing,
            _ => DeleteOutcome::Deleted,
        })
    }
}

/// The id under which an image's content is kept, which may have been there already.
async fn keep(connection: &mut SqliteConnection, image: &Image) -> Result<String, StoreError> {
    match find_content(connection, image).await? {
        Some(id) => {
            set_kernel(connection, &id, image.kernel.as_ref()).await?;
            Ok(id)
        }
        None => {
            insert_row(connection, image).await?;
            Ok(image.id.to_string())
        }
    }
}

/// Whether the origin of the image with this id begins so.
async fn is_of(
    connection: &mut SqliteConnection,
    id: &str,
    origin: Option<&str>,
) -> Result<bool, StoreError> {
    let Some(origin) = origin else {
        return Ok(false);
    };
    let known: String = sqlx::query_scalar("SELECT origin FROM images WHERE id = ?")
        .bind(id)
        .fetch_one(connection)
        .await
        .map_err(failed("find the image"))?;
    Ok(known.starts_with(origin))
}

/// Makes `reference` name the image with this id, commits, and returns it as it is then.
async fn named(
    mut transaction: Transaction<'_, Sqlite>,
    reference: &str,
    id: &str,
) -> Result<Image, StoreError> {
    point(&mut transaction, reference, id).await?;
    let row = sqlx::query(select!("WHERE id = ?"))
        .bind(id)
        .fetch_one(&mut *transaction)
        .await
        .map_err(failed(INSERT))?;
    transaction.commit().await.map_err(failed(INSERT))?;
    decode(&row)
}

/// The id of the image that a reference names.
async fn owner(
    connection: &mut SqliteConnection,
    reference: &str,
) -> Result<Option<String>, StoreError> {
    sqlx::query_scalar("SELECT image_id FROM image_references WHERE reference = ?")
        .bind(reference)
        .fetch_optional(connection)
        .await
        .map_err(failed("find the image"))
}

/// Makes `reference` name the image with this id, whatever it named before.
async fn point(
    connection: &mut SqliteConnection,
    reference: &str,
    id: &str,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO image_references (reference, image_id) VALUES (?, ?) \
         ON CONFLICT (reference) DO UPDATE SET image_id = excluded.image_id",
    )
    .bind(reference)
    .bind(id)
    .execute(connection)
    .await
    .map(drop)
    .map_err(failed("name the image"))
}

async fn set_kernel(
    connection: &mut SqliteConnection,
    id: &str,
    kernel: Option<&Name>,
) -> Result<(), StoreError> {
    let Some(kernel) = kernel else { return Ok(()) };
    sqlx::query("UPDATE images SET kernel = ? WHERE id = ?")
        .bind(kernel.as_str())
        .bind(id)
        .execute(connection)
        .await
        .map(drop)
        .map_err(failed("set the image's kernel"))
}

/// The id under which this content is kept for this platform.
async fn find_content(
    connection: &mut SqliteConnection,
    image: &Image,
) -> Result<Option<String>, StoreError> {
    sqlx::query_scalar(
        "SELECT id FROM images \
         WHERE digest = ? AND os = ? AND architecture = ? AND ifnull(variant, '') = ifnull(?, '')",
    )
    .bind(image.digest.to_string())
    .bind(&image.platform.os)
    .bind(&image.platform.architecture)
    .bind(&image.platform.variant)
    .fetch_optional(connection)
    .await
    .map_err(failed("find the image"))
}

async fn insert_row(connection: &mut SqliteConnection, image: &Image) -> Result<(), StoreError> {
    let done = sqlx::query(
        "INSERT INTO images (id, digest, os, architecture, variant, config, layers, rootfs_size_bytes, \
         rootfs_allocated_bytes, origin, kernel, create_time) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING",
    )
    .bind(image.id.to_string())
    .bind(image.digest.to_string())
    .bind(&image.platform.os)
    .bind(&image.platform.architecture)
    .bind(&image.platform.variant)
    .bind(json("config", &image.config)?)
    .bind(json("layers", &image.layers)?)
    .bind(integer("rootfs_size_bytes", image.rootfs_size_bytes)?)
    .bind(integer(
        "rootfs_allocated_bytes",
        image.rootfs_allocated_bytes,
    )?)
    .bind(&image.origin)
    .bind(image.kernel.as_ref().map(Name::as_str))
    .bind(nanoseconds("create_time", image.create_time)?)
    .execute(connection)
    .await
    .map_err(failed("insert the image"))?;
    if done.rows_affected() == 0 {
        return Err(StoreError::IdTaken {
            resource: "image",
            id: image.id.to_string(),
        });
    }
    Ok(())
}
